package evaluate

import (
	"fmt"
	"sort"

	"mlc.dev/mlc/compiler/kind"
)

// Threshold is the probability from which a row is decided as true: the one of least
// cost; of the greatest recall with the precision asked for; or of the greatest
// precision with the recall. Of equals the greatest wins. It lies halfway between two
// probabilities that occur, so that noise in the last bit decides nothing. It fails
// where no threshold reaches what is asked.
func Threshold(d kind.Decision, y []float64, p []float32) (float64, error) {
	if d.Kind == kind.DecideThreshold {
		return d.Value, nil
	}
	order := make([]int, len(p))
	positives := 0.0
	for i := range order {
		order[i] = i
		positives += y[i]
	}
	sort.Slice(order, func(a, b int) bool { return p[order[a]] > p[order[b]] })
	best, found, reach := 0.0, false, 0.0
	value := 0.0
	try := func(at float64, tp, fp float64) {
		score, ok := 0.0, true
		precision, recall := tp/max(tp+fp, 1), tp/max(positives, 1)
		switch d.Kind {
		case kind.DecideCost:
			score = -(d.FalsePositive*fp + d.FalseNegative*(positives-tp))
		case kind.DecidePrecision:
			score, ok = recall, precision >= d.AtLeast && tp+fp > 0
			reach = max(reach, precision)
		default:
			score, ok = precision, recall >= d.AtLeast
			reach = max(reach, recall)
		}
		if ok && (!found || score > value) {
			best, found, value = at, true, score
		}
	}
	if len(p) > 0 && p[order[0]] < 1 && d.Kind == kind.DecideCost {
		try((float64(p[order[0]])+1)/2, 0, 0) // nothing is true
	}
	var tp, fp float64
	for i := 0; i < len(order); {
		s := p[order[i]]
		for ; i < len(order) && p[order[i]] == s; i++ {
			if y[order[i]] != 0 {
				tp++
			} else {
				fp++
			}
		}
		below := 0.0
		if i < len(order) {
			below = float64(p[order[i]])
		}
		at := (float64(s) + below) / 2
		if i < len(order) && float32(at) <= p[order[i]] {
			at = float64(s) // nothing lies between the two
		}
		try(at, tp, fp)
	}
	if !found {
		return 0, fmt.Errorf("no threshold reaches a %s of %v; the greatest is %.4f", d.Kind, d.AtLeast, reach)
	}
	return best, nil
}
