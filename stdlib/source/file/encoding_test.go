package file

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
)

// TestDecoded: what x/text writes in an encoding is read back, however it comes in
// pieces, and is told for what it is.
func TestDecoded(t *testing.T) {
	latin, windows := charmap.ISO8859_1.NewEncoder(), charmap.Windows1252.NewEncoder()
	le, be := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder(), unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewEncoder()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"latin1", "iso-8859-1", "windows-1252", "utf-16le", "utf-16be", "utf-16"}).Draw(t, "encoding")
		alphabet := []rune("abc,\r\n\"éÿ ñ×")
		var enc interface{ String(string) (string, error) } = latin
		mark := ""
		switch name {
		case "windows-1252":
			enc, alphabet = windows, append(alphabet, '€', 'Œ', '’')
		case "utf-16le", "utf-16be", "utf-16":
			alphabet = append(alphabet, '€', '語', '😀', '�', '\u0085')
			enc, mark = le, "\xff\xfe"
			if name == "utf-16be" || name == "utf-16" && rapid.Bool().Draw(t, "big") {
				enc, mark = be, "\xfe\xff"
			}
			if name != "utf-16" && rapid.Bool().Draw(t, "no mark") {
				mark = ""
			}
		}
		text := "é" + rapid.StringOf(rapid.SampledFrom(alphabet)).Draw(t, "text") + strings.Repeat("a", rapid.IntRange(4080, 4100).Draw(t, "more")) + "é"
		raw, err := enc.String(text)
		if err != nil {
			t.Fatal(err)
		}
		raw = mark + raw
		got, err := io.ReadAll(decoded(iotest.OneByteReader(strings.NewReader(raw)), "rows.csv", name))
		if err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err = io.WriteString(z, raw)
		path := filepath.Join(dir, "rows.csv.gz")
		if err = errors.Join(err, z.Close(), os.WriteFile(path, packed.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
		copied, err := Transcode(dir, path, "rows.csv.gz", name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(copied)
		if err = errors.Join(err, os.Remove(copied)); err != nil || string(b) != text || filepath.Ext(copied) != ".csv" {
			t.Fatalf("%s: %q, %v", copied, b, err)
		}
		told, err := Encoding(path, "rows.csv.gz")
		want := map[string][]string{"utf-16": {"utf-16"}, "latin1": {"latin1"}, "iso-8859-1": {"latin1"}, "windows-1252": {"latin1", "windows-1252"}}[name]
		if err != nil || want != nil && !slices.Contains(want, told) {
			t.Fatalf("%q, %v", told, err)
		}
	})
}

// TestMeaningless: bytes that are no text are a fault that names them, and so is UTF-8
// by another name.
func TestMeaningless(t *testing.T) {
	for _, c := range []struct{ encoding, text, what, mend string }{
		{"latin1", "a\n\x80", "byte 0x80 of line 2 is no character", `"windows-1252", where it is €`},
		{"latin1", "a\x81", "byte 0x81 of line 1 is no character", "name the encoding"},
		{"latin1", "a\x00", "byte 0x00 of line 1 is no character", "name the encoding"},
		{"windows-1252", "a\n\n\x81", "byte 0x81 of line 3 is no character", "name the encoding"},
		{"latin1", "Caf\u00c9", "byte 0x89 of line 1", `"utf-8"`},
		{"latin1", "café", "is UTF-8 and not latin1", `"utf-8"`},
		{"windows-1252", strings.Repeat("a", 4095) + "é", "is UTF-8 and not windows-1252", `"utf-8"`},
		{"utf-16le", "a\x00\n\x00\x00\xd8b\x00", "bytes 0x00 0xd8 of line 2 are no character", "name the encoding"},
		{"utf-16be", "\x00a\x00", "bytes 0x00 of line 1 are no character", "name the encoding"},
		{"utf-16", "a\x00", "no byte-order mark", `"utf-16le"`},
		{"latin2", "a", `no encoding "latin2"`, "windows-1252"},
	} {
		_, err := io.ReadAll(decoded(strings.NewReader(c.text), "rows.csv", c.encoding))
		var faults kind.Faults
		if !errors.As(err, &faults) || !strings.Contains(faults[0].What, c.what) || !strings.Contains(faults[0].Mend, c.mend) || faults[0].Field != "encoding" {
			t.Errorf("%s of %q: %v", c.encoding, c.text, err)
		}
	}
	for _, text := range []string{"", "abc", "caf\xe9", "\xc3\xa9 \xe9", "\xe9\xc3"} {
		if b, err := io.ReadAll(decoded(strings.NewReader(text), "rows.csv", "latin1")); err != nil || len([]rune(string(b))) != len(text) {
			t.Errorf("%q: %q, %v", text, b, err)
		}
	}
}
