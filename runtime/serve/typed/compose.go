package typed

import (
	"fmt"
	"slices"

	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
)

// Compose is the signature of svc as a whole, of those of its models: of its steps, or
// its branches, in their order. It takes the features of all branches, or those that no
// earlier step gives, each once and as narrowly as any model declares it, and answers as
// the first branch, or the last step, does. It is nil where a model has none.
//
// The errors tell of features that no declaration suits: what the first model says of
// them holds then, and the others may fail.
func Compose(svc *service.Service, sigs []*bundle.Signature) (sig *bundle.Signature, errs []error) {
	if len(sigs) == 0 || slices.Contains(sigs, nil) {
		return nil, nil
	}
	if len(sigs) == 1 && len(svc.Steps) == 0 {
		return sigs[0], nil
	}
	out := *sigs[0]
	if len(svc.Steps) > 0 {
		out = *sigs[len(sigs)-1]
		out.Model = svc.Name
	}
	out.Inputs, out.Raw = nil, nil
	at := map[string]int{}
	for i, s := range sigs {
		fed := map[string]string{}
		if len(svc.Steps) > 0 {
			fed = svc.Steps[i].Inputs
		}
		for _, in := range s.Inputs {
			if _, ok := fed[in.Name]; ok {
				continue
			}
			of := slices.IndexFunc(s.Raw, func(f lower.Field) bool { return f.Name == in.Name })
			if k, ok := at[in.Name]; !ok {
				at[in.Name] = -1
				out.Inputs = append(out.Inputs, in)
				if of >= 0 {
					at[in.Name] = len(out.Raw)
					out.Raw = append(out.Raw, s.Raw[of])
				}
			} else if k >= 0 && of >= 0 {
				if err := narrow(&out.Raw[k], s.Raw[of]); err != nil {
					errs = append(errs, fmt.Errorf("feature %s %w", in.Name, err))
				}
			}
		}
	}
	return &out, errs
}

// narrow makes of f what is right for o too. After an error it is as it was.
func narrow(f *lower.Field, o lower.Field) error {
	if f.Type != o.Type {
		return fmt.Errorf("is %s of one model, and %s of another", article(f.Type), article(o.Type))
	}
	both := *f
	both.Nullable = f.Nullable && o.Nullable
	both.Sensitive = f.Sensitive || o.Sensitive
	if f.Column != o.Column {
		both.Column = ""
	}
	bound := func(a, b *float64, tighter func(a, b float64) bool) *float64 {
		if a == nil || b != nil && tighter(*b, *a) {
			return b
		}
		return a
	}
	both.Min = bound(f.Min, o.Min, func(a, b float64) bool { return a > b })
	both.Max = bound(f.Max, o.Max, func(a, b float64) bool { return a < b })
	if both.Min != nil && both.Max != nil && *both.Min > *both.Max {
		return fmt.Errorf("has no value that all models take: one starts at %v, and another ends at %v", *both.Min, *both.Max)
	}
	switch {
	case f.In == nil:
		both.In = o.In
	case o.In != nil:
		key := func(v any) string { return fmt.Sprint(v) }
		taken := map[string]bool{}
		for _, v := range o.In {
			taken[key(v)] = true
		}
		both.In = slices.DeleteFunc(slices.Clone(f.In), func(v any) bool { return !taken[key(v)] })
		if len(both.In) == 0 {
			return fmt.Errorf("has no value that all models take: their lists have none in common")
		}
	}
	if f.Type == types.String { // what is missing to one is no text to any
		for _, n := range o.Nulls {
			if !slices.Contains(both.Nulls, n) {
				both.Nulls = append(slices.Clone(both.Nulls), n)
			}
		}
	}
	*f = both
	return nil
}
