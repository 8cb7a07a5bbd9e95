package encoder

import (
	"math/bits"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/encoder/hash"
)

// murmur3 is MurmurHash3_x86_32 of seed 0 as Austin Appleby defines it.
func murmur3(s string) uint32 {
	mix := func(k uint32) uint32 { return bits.RotateLeft32(k*0xcc9e2d51, 15) * 0x1b873593 }
	h, tail := uint32(0), uint32(0)
	for i := range len(s) {
		if tail |= uint32(s[i]) << (8 * (i % 4)); i%4 == 3 {
			h, tail = bits.RotateLeft32(h^mix(tail), 13)*5+0xe6546b64, 0
		}
	}
	h ^= mix(tail) ^ uint32(len(s))
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// TestMurmur compares with scikit-learn's murmurhash3_32(text, positive=True).
func TestMurmur(t *testing.T) {
	for s, want := range map[string]uint32{"": 0, "a": 1009084850, "hello": 613153351, "Äß x": 3149857194, "␀": 189245192, "日本語": 2779017879, "The quick brown fox": 1621279277} {
		if got := murmur3(s); got != want {
			t.Errorf("%q has %d, want %d", s, got, want)
		}
	}
}

// TestHash: a text's only 1 is in its bucket, and a missing value has none.
func TestHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 3, 8, 12}).Draw(t, "bits")
		rows := rapid.SliceOfN(anyText, 1, 8).Draw(t, "rows")
		got, _, names := run(t, hash.Encoder{}, `{"bits":`+strconv.Itoa(n)+`}`, kind.Values{Texts: rows}, kind.Values{Texts: rows})
		if len(names) != 1<<n || names[1] != "1" {
			t.Fatalf("%d columns", len(names))
		}
		for i, s := range rows {
			for j, v := range got[i<<n : (i+1)<<n] {
				want := 0.0
				if s != null && murmur3(s)%(1<<n) == uint32(j) {
					want = 1
				}
				if v != want {
					t.Fatalf("%q has %v in column %d", s, v, j)
				}
			}
		}
	})
}

// anyText is any string that comes through validation, or a missing one.
var anyText = rapid.OneOf(rapid.SampledFrom([]string{"", null, "a", "A a", "ÄÖ äö", "日本 語", "e\u0301", "x_1 \t\n -9"}),
	rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, 0) }))
