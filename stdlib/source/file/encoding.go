package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// unzipped reads a file without its gzip, which its first bytes tell.
func unzipped(f io.Reader) (r io.Reader, compression string, err error) {
	buffered := bufio.NewReaderSize(f, 1<<20)
	if magic, _ := buffered.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, "none", nil
	}
	r, err = gzip.NewReader(buffered)
	return r, "gzip", err
}

// Encoding tells which of the encodings a text file seems to be written in: "" where it
// is UTF-8, or none of them.
func Encoding(path, label string) (string, error) {
	for _, e := range []string{"", "utf-16", "latin1", "windows-1252"} {
		f, err := os.Open(path)
		if err != nil {
			return "", unopened(label, err)
		}
		r, _, err := unzipped(f)
		if err == nil {
			t := encoding.UTF8Validator
			if e != "" {
				t = &decoder{encoding: e, line: 1}
			}
			_, err = io.Copy(io.Discard, transform.NewReader(r, t))
		}
		if cerr := f.Close(); cerr != nil {
			return "", cerr
		}
		var faults kind.Faults
		if err == nil {
			return e, nil
		} else if !errors.As(err, &faults) && !errors.Is(err, encoding.ErrInvalidUTF8) {
			return "", unreadable(label, err)
		}
	}
	return "", nil
}

// Transcode copies a text file to a new one in a folder, as UTF-8 and without gzip. The
// file's name ends as the old one did.
func Transcode(dir, path, label, encoding string) (to string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", unopened(label, err)
	}
	defer f.Close()
	r, _, err := unzipped(f)
	if err != nil {
		return "", unreadable(label, err)
	}
	out, err := os.CreateTemp(dir, "utf8-*"+filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")))
	if err != nil {
		return "", err
	}
	in := &reads{r: decoded(r, label, encoding)}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		err = errors.Join(err, os.Remove(out.Name()))
	}
	if in.err != nil {
		return "", unreadable(label, in.err)
	}
	return out.Name(), err
}

// reads keeps the error of a reader, which io.Copy does not tell from the writer's.
type reads struct {
	r   io.Reader
	err error
}

func (r *reads) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != io.EOF {
		r.err = err
	}
	return n, err
}

// decoded reads a text in some encoding as UTF-8.
func decoded(r io.Reader, label, encoding string) io.Reader {
	if encoding == "" || encoding == "utf-8" {
		return r
	}
	return transform.NewReader(r, &decoder{label: label, encoding: encoding, line: 1})
}

// decoder makes UTF-8 of a text. Unlike those of x/text, it takes nothing that has no
// meaning in the encoding.
type decoder struct {
	label, encoding string
	begun           bool // the first bytes are done with
	big             bool // UTF-16: the high byte comes first
	line            int
	// What tells that a text of single bytes is UTF-8 after all: bytes above ASCII, each
	// part of a character. tail is the beginning of one.
	above, other bool
	tail         []byte
}

// Reset makes it ready for another text.
func (d *decoder) Reset() { *d = decoder{label: d.label, encoding: d.encoding, line: 1} }

// Transform decodes as much as there is room for. Its errors are kind.Faults.
func (d *decoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	if !d.begun {
		if len(src) < 3 && !atEOF {
			return 0, 0, transform.ErrShortSrc
		}
		d.begun = true
		if nSrc, err = d.begin(src); err != nil {
			return 0, 0, err
		}
	}
	begin := nSrc
	for nSrc < len(src) {
		c, n := d.rune(src[nSrc:])
		if n == 0 && !atEOF {
			err = transform.ErrShortSrc
			break
		}
		if c <= 0 || n == 0 {
			d.sees(src[begin : nSrc+n])
			return nDst, nSrc, d.meaningless(src[nSrc:])
		}
		if nDst+utf8.RuneLen(c) > len(dst) {
			err = transform.ErrShortDst
			break
		}
		nDst += utf8.EncodeRune(dst[nDst:], c)
		nSrc += n
		if c == '\n' {
			d.line++
		}
	}
	if d.sees(src[begin:nSrc]); atEOF && err == nil && d.above && !d.other && len(d.tail) == 0 {
		err = fault("encoding", diag.Unreadable, fmt.Sprintf("%s is UTF-8 and not %s", d.label, d.encoding), "all that is not ASCII in it is UTF-8, which other text never is by chance", `set encoding: "utf-8"`)
	}
	return nDst, nSrc, err
}

// begin looks at a text's first bytes, and returns how many are a byte-order mark.
func (d *decoder) begin(src []byte) (int, error) {
	little, big := bytes.HasPrefix(src, []byte{0xff, 0xfe}), bytes.HasPrefix(src, []byte{0xfe, 0xff})
	switch d.encoding {
	case "utf-16":
		if !little && !big && len(src) > 0 {
			return 0, fault("encoding", diag.Unreadable, fmt.Sprintf("%s cannot be read as UTF-16: it has no byte-order mark", d.label), "which byte of two comes first is not known", `set encoding: "utf-16le" or "utf-16be"`)
		}
		d.big = big
		return min(2, len(src)), nil
	case "utf-16le":
		return map[bool]int{true: 2}[little], nil
	case "utf-16be":
		d.big = true
		return map[bool]int{true: 2}[big], nil
	case "latin1", "iso-8859-1", "windows-1252":
		return 0, nil
	}
	return 0, fault("encoding", diag.BadArgs, fmt.Sprintf("no encoding %q%s", d.encoding, diag.Suggest(d.encoding, encodings)), "", "name one of "+strings.Join(encodings, ", "))
}

// encodings are those that #File allows.
var encodings = []string{"utf-8", "latin1", "iso-8859-1", "windows-1252", "utf-16", "utf-16le", "utf-16be"}

// wide reports whether characters have two bytes or four.
func (d *decoder) wide() bool { return strings.HasPrefix(d.encoding, "utf-16") }

// rune is the first character and how many bytes it has: 0 where they may go on, and a
// character that is not positive where they mean nothing in a text.
func (d *decoder) rune(src []byte) (c rune, n int) {
	if !d.wide() {
		if c, n = rune(src[0]), 1; d.encoding == "windows-1252" {
			c = charmap.Windows1252.DecodeByte(src[0])
		}
		if 0x80 <= c && c < 0xa0 || c == utf8.RuneError { // no text holds the second set of control characters
			c = -1
		}
		return c, n
	}
	if len(src) < 2 {
		return 0, 0
	}
	if c = d.unit(src); !utf16.IsSurrogate(c) {
		return c, 2
	}
	if len(src) < 4 {
		return 0, 0
	}
	if c = utf16.DecodeRune(c, d.unit(src[2:])); c == utf8.RuneError {
		c = -1
	}
	return c, 4
}

// unit is the first two bytes as one number.
func (d *decoder) unit(src []byte) rune {
	if d.big {
		return rune(src[0])<<8 | rune(src[1])
	}
	return rune(src[1])<<8 | rune(src[0])
}

// meaningless tells of the bytes that no character begins with.
func (d *decoder) meaningless(src []byte) error {
	what, mend := fmt.Sprintf("byte %#02x of line %d is", src[0], d.line), "name the encoding that the file is written in"
	switch at := charmap.Windows1252.DecodeByte(src[0]); {
	case d.wide():
		what = fmt.Sprintf("bytes % #x of line %d are", src[:min(len(src), 2)], d.line)
	case !d.other && (d.above || len(d.tail) > 1):
		mend = `set encoding: "utf-8", which it is so far`
	case d.encoding != "windows-1252" && at > 0xff && at != utf8.RuneError:
		mend = `set encoding: "windows-1252", where it is ` + string(at)
	}
	return fault("encoding", diag.Unreadable, fmt.Sprintf("%s cannot be read as %s: %s no character", d.label, d.encoding, what), "", mend)
}

// sees looks for what is not UTF-8 in more of a text of single bytes.
func (d *decoder) sees(src []byte) {
	if d.wide() || d.other {
		return
	}
	for src = append(d.tail, src...); len(src) > 0; {
		c, n := utf8.DecodeRune(src)
		if c == utf8.RuneError && n == 1 {
			d.other = utf8.FullRune(src)
			break
		}
		d.above = d.above || n > 1
		src = src[n:]
	}
	d.tail = bytes.Clone(src)
}
