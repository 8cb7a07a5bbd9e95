package check

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// named proves that the columns that trainers' arguments name can come of the model's
// features (kind.Naming). How many a feature makes may be known in training only.
func (r *resolver) named() {
	for _, m := range r.sys.Models {
		t, ok := m.Trainer.Kind.(kind.Naming)
		if !ok || r.spec.Broken(m.Trainer.Path) || r.spec.Broken(m.Path+".inputs") || len(m.Inputs) == 0 {
			continue
		}
		var features []string
		for _, in := range m.Inputs {
			features = append(features, in.Feature.Name)
		}
		fields := t.Named(m.Trainer.Args)
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			pattern := fields[field]
			if slices.ContainsFunc(features, func(feature string) bool { return mayName(pattern, feature) }) {
				continue
			}
			r.faults(m.Trainer.Path, []kind.Fault{{Field: field, Code: diag.NoColumn, What: fmt.Sprintf("the features of model %q make no column %q%s", m.Name, pattern, diag.Suggest(pattern, features)),
				Why: "columns are called as their features are, by group and name", Mend: "mend the name"}})
		}
	}
}

// mayName reports whether a pattern may match a column of a feature.
func mayName(pattern, feature string) bool {
	if ok, err := path.Match(pattern, feature); ok || err != nil {
		return true // what is no pattern is the trainer's to tell
	}
	start, open := pattern, false
	if i := strings.IndexAny(pattern, `*?[\\`); i >= 0 {
		start, open = pattern[:i], true
	}
	return strings.HasPrefix(start, feature) || open && strings.HasPrefix(feature, start)
}
