// Package shares is what splits have in common: the arguments validation and test,
// the one hash that spreads rows, and the proof that parts do not leak.
package shares

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// Args are the shares of rows.
type Args struct {
	Validation float64 `json:"validation"`
	Test       float64 `json:"test"`
}

// Check wants rows to be left for training, and no prediction time: rows by share
// would train on what comes after the test. name is the split's.
func Check(raw json.RawMessage, info kind.SplitInfo, name string) []kind.Fault {
	var faults []kind.Fault
	if a := kind.DecodeArgs[Args](raw); a.Validation+a.Test >= 1 {
		faults = append(faults, kind.Fault{Field: "test", Code: diag.BadArgs, What: "validation and test leave no rows to train on", Mend: "make their sum less than 1"})
	}
	if info.HasTime {
		faults = append(faults, kind.Fault{Code: diag.FittedLeak, What: "a " + name + " split of a problem with a prediction time",
			Why: "training rows would lie after test rows, so the test would judge hindsight", Mend: `use split: {kind: "time", …}, or leave out label.at if time plays no part`})
	}
	return faults
}

// Unit spreads an identity evenly over [0,1): the first 53 bits of
// SHA-256(seed, identity). It never changes, so rows keep their part.
func Unit(seed uint64, id string) float64 {
	h := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, seed), id...))
	return float64(binary.BigEndian.Uint64(h[:])>>11) / (1 << 53)
}

// Apart proves that the test judges no hindsight, or is a fault of a field. With a prediction time, what the
// model learns of or stops by was decided before the first test row's time;
// without one, no entity is in two parts.
func Apart(job kind.SplitJob, parts []kind.Part, field string) error {
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
			if (p == kind.Train || p == kind.Valid) && job.Time[i]+job.Window > first {
				if late == 0 {
					example = i
				}
				late++
			}
		}
		if late > 0 {
			return leak("purge them, or test on later rows", "%d train and validation rows have an outcome that is decided after the first test row's time, %s; row %d is the first",
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
			return leak("keep the rows with one _group together", "rows of one entity are in two parts: row %d is %s, another of its entity is %s", i, kind.PartNames[p], kind.PartNames[other])
		}
		part[job.Group[i]] = p
	}
	return nil
}
