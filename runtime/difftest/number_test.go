package difftest

import (
	"context"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/runtime/sql"
)

var (
	numeral = regexp.MustCompile(`^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$`)
	nan     = regexp.MustCompile(`^(?i)[-+]?nan$`)
	inf     = regexp.MustCompile(`^(?i)[-+]?inf(inity)?$`)
)

// TestReadNumber: texts are the numbers that Go's own parser and exact arithmetic have.
func TestReadNumber(t *testing.T) {
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	text := rapid.OneOf(
		rapid.StringMatching(`[-+]?[0-9]{0,20}\.?[0-9]{0,3}([eE][-+]?[0-9]{1,2})?`),
		rapid.StringMatching(`[-+]?[0-9]{0,4}0{0,8}\.?0{0,8}[0-9]?(e-?[0-9])?`),
		rapid.StringMatching(`[-+0-9._eExan(fi) ]{0,7}`),
		rapid.SampledFrom([]string{"9007199254740992.5", "9.0000000000000001", "1e-400", "1e400", "0e99999999999", "1e99999999999", "9223372036854775807", "9223372036854775808", "-9223372036854775808.0", "1_0", "1e1_0", "+-5", "0x1F", "nan", "-NaN", "nan(1)", "Infinity", "-inf", "true", "１", " 12 ", "00012", ""}),
	)
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(text, 1, 40).Draw(t, "texts")
		rows := make([]string, len(texts))
		for i, s := range texts {
			rows[i] = fmt.Sprintf("(%d, %s)", i, expr.QuoteString(s))
		}
		q := "SELECT i, CAST(" + expr.ReadNumber("s") + " AS VARCHAR), " + expr.ReadWhole("s") + " FROM (VALUES " + strings.Join(rows, ", ") + ") AS v(i, s)"
		err := db.Rows(ctx, q, func(scan func(...any) error) error {
			var i int
			var number *string
			var whole *int64
			if err := scan(&i, &number, &whole); err != nil {
				return err
			}
			s := strings.TrimSpace(texts[i])
			if is := numeral.MatchString(s) || nan.MatchString(s) || inf.MatchString(s); is != (number != nil) {
				t.Fatalf("%q is read as %v", s, number)
			}
			var want *int64
			if numeral.MatchString(s) {
				x, _ := strconv.ParseFloat(s, 64)
				if got, _ := strconv.ParseFloat(*number, 64); got != x {
					t.Fatalf("%q is read as %s", s, *number)
				}
				if mantissa, exp, _ := strings.Cut(strings.ToLower(s), "e"); strings.Trim(mantissa, "+-.0") == "" {
					want = new(int64)
				} else if e, err := strconv.Atoi(exp); exp == "" || err == nil && e > -100 && e < 100 {
					if r, ok := new(big.Rat).SetString(s); ok && r.IsInt() && r.Num().IsInt64() {
						n := r.Num().Int64()
						want = &n
					}
				}
			}
			if (want == nil) != (whole == nil) || want != nil && *want != *whole {
				t.Fatalf("%q as a whole number is %v, not %v", s, whole, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
