// Package shares is what the splits by share have in common: the arguments
// validation and test, and the one hash that spreads rows.
package shares

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"

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

// Validates reports whether the argument validation, of any split that has it, is a
// share of the rows.
func Validates(raw json.RawMessage) bool {
	a := kind.DecodeArgs[struct {
		Validation float64 `json:"validation"`
	}](raw)
	return a.Validation > 0
}

// Unit spreads an identity evenly over [0,1): the first 53 bits of
// SHA-256(seed, identity). It never changes, so rows keep their part.
func Unit(seed uint64, id string) float64 {
	h := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, seed), id...))
	return float64(binary.BigEndian.Uint64(h[:])>>11) / (1 << 53)
}
