// Package stratified divides every class by the same shares.
package stratified

import (
	"context"
	_ "embed"
	"encoding/json"
	"math"
	"sort"
	"strconv"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/shares"
)

//go:embed stratified.cue
var source string

// Split is the kind "stratified".
type Split struct{}

// Name is "stratified".
func (Split) Name() string { return "stratified" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #Stratified.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "stratified", Def: "#Stratified", Source: source}
}

// Check wants training rows to be left, no prediction time, and no entity, whose
// rows it would divide.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	faults := shares.Check(raw, info, "stratified")
	if info.HasEntity {
		faults = append(faults, kind.Fault{Code: diag.FittedLeak, What: "a stratified split of a problem with an entity",
			Why: "rows of one entity would train and test", Mend: `use split: {kind: "random"}, which keeps them together, or leave out the problem's entity if each row is its own`})
	}
	return faults
}

// Validates asks for a share of them.
func (Split) Validates(raw json.RawMessage) bool { return shares.Validates(raw) }

// Assign orders each stratum's rows by hash and cuts it by the shares.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	s := kind.DecodeArgs[shares.Args](job.Args)
	strata := map[int][]int{}
	for i, k := range shares.Strata(job.Label) {
		strata[k] = append(strata[k], i)
	}
	out := make([]kind.Part, len(job.Label))
	for _, rows := range strata {
		unit := make(map[int]float64, len(rows))
		for _, i := range rows {
			// Rows of one group may part here, so each counts by its own place.
			unit[i] = shares.Unit(job.Seed, job.Group[i]+"\x00"+strconv.Itoa(i))
		}
		sort.Slice(rows, func(a, b int) bool {
			x, y := rows[a], rows[b]
			return unit[x] < unit[y] || unit[x] == unit[y] && x < y
		})
		n := float64(len(rows))
		test := int(math.Round(n * s.Test))
		valid := test + int(math.Round(n*s.Validation))
		for k, i := range rows {
			if k < test {
				out[i] = kind.Test
			} else if k < valid {
				out[i] = kind.Valid
			}
		}
	}
	return out, nil
}
