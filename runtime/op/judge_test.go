package op

import (
	"math"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/kind"
)

// TestDemand: what is sure passes, what is not is told with the rows that it takes.
func TestDemand(t *testing.T) {
	share := func(value, err float64) measured { return measured{value, err, 2. / 103, 1, 0, 1} }
	for _, c := range []struct {
		what       string
		measured   measured
		bound      float64
		better     kind.Direction
		confidence float64
		want       string // of the fault; "": it passes
	}{
		{"surely above", share(0.95, 0.03), 0.88, kind.Up, 0.95, ""},
		{"above, not surely", share(0.95, 0.05), 0.88, kind.Up, 0.95, "0.9500 ± 0.0822 is inconclusive: it reaches min 0.88, but not with 95 % confidence; about 139 rows"},
		{"as it is", share(0.95, 0.05), 0.88, kind.Up, 0.5, ""},
		{"exactly, by chance", share(0.88, 0.02), 0.88, kind.Up, 0.95, "0.8800 is min 0.88 exactly, and may be below it by chance"},
		{"exact", share(0.88, 0), 0.88, kind.Up, 0.95, ""},
		{"below", share(0.8, math.NaN()), 0.88, kind.Up, 0.95, "0.8000 is below min 0.88"},
		{"no value is below 0", share(0.0027, 0.0024), 0, kind.Up, 0.95, ""},
		{"nor where nothing else is known", share(0.0027, math.NaN()), 0, kind.Up, 0.95, ""},
		{"no share is above 1", share(0.9, 0.2), 1, kind.Down, 0.95, ""},
		{"no error is below 0, but above", measured{0.5, 0.2, 0, math.Inf(1), 0, math.Inf(1)}, 0.6, kind.Down, 0.95, "0.5000 ± 0.3290 is inconclusive: it reaches max 0.6"},
		{"no difference is below -1", share(0, 0).minus(0.1, 0.9), -1, kind.Up, 0.95, ""},
		{"not known", share(0.99, math.NaN()), 0.9, kind.Up, 0.95, "0.9900 is inconclusive: it reaches min 0.9, but the 100 test rows are too few or too much alike to tell how sure it is"},
		{"not known, as it is", share(0.99, math.NaN()), 0.9, kind.Up, 0.5, ""},
		// 2 Z / (n+3) is 0.01 for n = 326.
		{"all right", share(1, 2./103), 0.99, kind.Up, 0.95, "1.0000 ± 0.0319 is inconclusive: it reaches min 0.99, but not with 95 % confidence; about 326 rows"},
		{"less sure than the floor, where some are wrong", share(0.95, 0.01), 0.94, kind.Up, 0.95, "about 271 rows"},
		{"a difference of which nothing was seen", share(0, 0).minus(0.01, 2./103), 0, kind.Up, 0.95, "0.0100 ± 0.0319 is inconclusive: it reaches min 0, but not with 95 % confidence; about 326 rows"},
		{"none wrong", share(0, 2./103), 0.01, kind.Down, 0.95, "0.0000 ± 0.0319 is inconclusive: it reaches max 0.01, but not with 95 % confidence; about 326 rows"},
	} {
		g := &gates{subject: "m", rows: 100}
		passed := g.demand("gates[0]", "gate x", c.measured, c.bound, c.better, c.confidence)
		if passed != (c.want == "") || passed != (len(g.faults) == 0) {
			t.Errorf("%s: passed is %v, with %v", c.what, passed, g.faults)
			continue
		}
		if !passed {
			got := g.faults[0].What + "; " + g.faults[0].Mend
			for _, part := range strings.Split(c.want, "; ") {
				if !strings.Contains(got, part) {
					t.Errorf("%s: %q does not tell %q", c.what, got, part)
				}
			}
		}
	}
}
