package typed

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
)

// What a caller may send is what every model takes.
func TestComposeNarrows(t *testing.T) {
	f := func(change func(*lower.Field)) *bundle.Signature {
		sig := birds(kind.Binary)
		sig.Raw = []lower.Field{{Name: "g.x", Column: "x", Type: types.Float, Nullable: true, Min: ptr(0), In: []any{1.0, 2.0, 3.0}}, {Name: "g.t", Type: types.String, Nullable: true, Nulls: []string{"?"}}}
		change(&sig.Raw[0])
		inputs(sig)
		return sig
	}
	same := func(*lower.Field) {}
	for name, c := range map[string]struct {
		change func(*lower.Field)
		want   func(*lower.Field)
		err    string
	}{
		"the same":       {same, same, ""},
		"never null":     {func(f *lower.Field) { f.Nullable = false }, func(f *lower.Field) { f.Nullable = false }, ""},
		"a greater min":  {func(f *lower.Field) { f.Min = ptr(1) }, func(f *lower.Field) { f.Min = ptr(1) }, ""},
		"no min":         {func(f *lower.Field) { f.Min = nil }, same, ""},
		"a max":          {func(f *lower.Field) { f.Max = ptr(9) }, func(f *lower.Field) { f.Max = ptr(9) }, ""},
		"fewer values":   {func(f *lower.Field) { f.In = []any{3, 1} }, func(f *lower.Field) { f.In = []any{1.0, 3.0} }, ""},
		"any value":      {func(f *lower.Field) { f.In = nil }, same, ""},
		"sensitive":      {func(f *lower.Field) { f.Sensitive = true }, func(f *lower.Field) { f.Sensitive = true }, ""},
		"another column": {func(f *lower.Field) { f.Column = "y" }, func(f *lower.Field) { f.Column = "" }, ""},
		"another type":   {func(f *lower.Field) { f.Type = types.Int }, same, "feature g.x is a number of one model, and a whole number of another"},
		"no value":       {func(f *lower.Field) { f.In = []any{4.0} }, same, "none in common"},
		"no range":       {func(f *lower.Field) { f.Max, f.Min = ptr(-1), nil }, same, "one starts at 0, and another ends at -1"},
	} {
		first, second := f(same), f(c.change)
		sig, errs := Compose(&service.Service{}, []*bundle.Signature{first, second})
		if c.err == "" != (len(errs) == 0) || len(errs) > 0 && !strings.Contains(errs[0].Error(), c.err) {
			t.Errorf("%s: %v", name, errs)
		}
		want := f(same).Raw
		c.want(&want[0])
		if diff := cmp.Diff([]lower.Field{want[1], want[0]}, sig.Raw); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if diff := cmp.Diff(f(same), first); diff != "" {
			t.Errorf("%s: the model's own is another now:\n%s", name, diff)
		}
	}
}
