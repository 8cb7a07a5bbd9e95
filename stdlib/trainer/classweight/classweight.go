// Package classweight is the argument class_weight of trainers that can weigh rows by
// their class.
package classweight

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// Weight is "balanced", a number by class, or nothing. Its zero value is nothing.
type Weight struct {
	balanced bool
	by       map[string]float64
}

// UnmarshalJSON reads either form.
func (w *Weight) UnmarshalJSON(b []byte) error {
	if string(b) == `"balanced"` {
		w.balanced = true
		return nil
	}
	return json.Unmarshal(b, &w.by)
}

// binary are the classes of a binary problem.
var binary = []string{"false", "true"}

// Check refuses weights where there are no classes that exclude each other, and names
// that are no class of a binary problem; those of a multiclass one show in its data.
func (w Weight) Check(task string) []kind.Fault {
	switch {
	case !w.balanced && len(w.by) == 0 || task == "" || task == kind.Multiclass:
		return nil
	case task == kind.Binary:
		return w.unknown(binary)
	}
	return []kind.Fault{{Field: "class_weight", Code: diag.BadArgs, What: "class_weight has no meaning in a " + task + " problem", Why: "it weighs a row by the one class that it has", Mend: "leave it out"}}
}

// Classes is the weight of each class, or nil where all rows count the same. Balanced,
// it is the number of rows over that of classes and of the class's rows, as
// scikit-learn has it. Names that are no class are faults.
func (w Weight) Classes(task kind.Task, y []float64) ([]float64, kind.Faults) {
	if !w.balanced && len(w.by) == 0 {
		return nil, nil
	}
	names := task.Classes
	if task.Kind == kind.Binary {
		names = binary
	}
	out := make([]float64, len(names))
	if w.balanced {
		for _, v := range y {
			out[int(v)]++
		}
		for k, n := range out {
			out[k] = float64(len(y)) / (float64(len(out)) * math.Max(n, 1))
		}
		return out, nil
	}
	for k, name := range names {
		out[k] = 1
		if v, ok := w.by[name]; ok {
			out[k] = v
		}
	}
	return out, w.unknown(names)
}

// unknown are the faults of names that are no class.
func (w Weight) unknown(names []string) (faults kind.Faults) {
	why, mend := "the classes are "+strings.Join(names, ", "), "mend the name"
	if slices.Equal(names, binary) {
		mend = "name false or true: whether the label's condition holds"
	}
	for _, name := range slices.Sorted(maps.Keys(w.by)) {
		if !slices.Contains(names, name) {
			faults = append(faults, kind.Fault{Field: "class_weight", Code: diag.BadArgs, What: fmt.Sprintf("class_weight names %q, which is no class%s", name, diag.Suggest(name, names)), Why: why, Mend: mend})
		}
	}
	return faults
}
