// Package leak proves that parts which others made do not leak.
package leak

import (
	"fmt"
	"math"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// Check proves that the test judges no hindsight, or is a fault of a field. With a prediction time, what the
// model learns of or stops by was known before the first test row's time;
// without one, no entity is in two parts.
func Check(job kind.SplitJob, parts []kind.Part, field string) error {
	leak := func(mend, what string, args ...any) error {
		return kind.Faults{{Field: field, Code: diag.FittedLeak, What: fmt.Sprintf(what, args...), Why: "the test would judge hindsight", Mend: mend}}
	}
	if len(job.Time) > 0 {
		first := int64(math.MaxInt64)
		for i, p := range parts {
			if p == kind.Test {
				first = min(first, job.Time[i])
			}
		}
		late, example := 0, 0
		for i, p := range parts {
			if (p == kind.Train || p == kind.Valid) && job.Known[i] > first {
				if late == 0 {
					example = i
				}
				late++
			}
		}
		if late > 0 {
			return leak("purge them, or test on later rows", "%d train and validation rows have an outcome that is known only after the first test row's time, %s; the first has _row_id %d, counted from 0 among the labelled rows",
				late, time.UnixMicro(first).UTC().Format(time.RFC3339), example)
		}
		return nil
	}
	part := map[string]kind.Part{}
	for i, p := range parts {
		if p == kind.Purged {
			continue
		}
		if other, ok := part[job.Group[i]]; ok && other != p {
			return leak("keep the rows with one _group together", "rows of one entity are in two parts: the one with _row_id %d, counted from 0 among the labelled rows, is %s, another of its entity is %s", i, kind.PartNames[p], kind.PartNames[other])
		}
		part[job.Group[i]] = p
	}
	return nil
}
