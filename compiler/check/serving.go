package check

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/compiler/types"
)

// service resolves what answers with the models, and proves that it is served as
// trained, that its traffic adds up, and that its budgets can be kept together.
func (r *resolver) service(name string, v *spec.Value) {
	switch text(v.Get("kind")) {
	case "realtime":
		r.realtime(name, v)
	case "batch":
		r.batch(name, v)
	}
}

// served is a model's place in a service. The model is nil where the reference
// is in error, which is reported.
type served struct {
	ref   service.Ref
	path  string
	model *ir.Model
	// fed are the features that earlier steps give.
	fed map[string]bool
}

// takes are the raw features that come with a request for it, and whether all of
// them are known: they are not where something about the model is in error.
func (s served) takes(r *resolver) (raw []*ir.Feature, whole bool) {
	if s.model == nil {
		return nil, false
	}
	raw, whole = r.raw(s.model)
	return slices.DeleteFunc(raw, func(f *ir.Feature) bool { return s.fed[f.Name] }), whole
}

// raw are the features that a model is given and does not compute, in order of
// names, and whether all of them are known.
func (r *resolver) raw(m *ir.Model) (raw []*ir.Feature, whole bool) {
	whole = !r.spec.Broken(m.Path + ".inputs")
	for _, in := range m.AllInputs() {
		whole = whole && in.Feature.Type != types.Invalid
		for _, f := range in.Feature.Origins() {
			if !slices.Contains(raw, f) {
				raw = append(raw, f)
			}
		}
	}
	slices.SortFunc(raw, func(a, b *ir.Feature) int { return strings.Compare(a.Name, b.Name) })
	return raw, whole
}

// modelRef resolves the reference at v. The model is nil where it, or the model
// that it names, is in error.
func (r *resolver) modelRef(v *spec.Value) served {
	if v == nil || r.spec.Broken(v.Path) {
		return served{}
	}
	name, alias, _ := strings.Cut(text(v), "@")
	s := served{ref: service.Ref{Model: name, Alias: alias}, path: v.Path}
	for _, m := range r.sys.Models {
		if m.Name == name {
			s.model = m
			return s
		}
	}
	declared := r.spec.Root.Get("models")
	if declared.Get(name) == nil && !r.spec.Broken("models."+name) {
		var names []string
		if declared != nil {
			for _, f := range declared.Fields {
				names = append(names, f.Name)
			}
		}
		r.list.Add(r.spec.Inside(v.Path, 0, len(name)), diag.NoName, "no model %q%s", name, diag.Choices(name, names)).Because("", "declare it under models, or mend the name")
	}
	return s
}

func (r *resolver) realtime(name string, v *spec.Value) {
	s := &ir.Service{Path: v.Path, Service: service.Service{Format: service.Format, System: r.sys.Name, Name: name,
		Sticky: text(v.Get("sticky")), CORS: get[[]string](v.Get("cors")), Providers: get[[]string](v.Get("providers"))}}
	r.sys.Services = append(r.sys.Services, s)
	answering := r.answering(s, v)
	all := slices.Clone(answering)
	problem := r.sameProblem(answering)
	if sh := v.Get("shadow"); sh != nil {
		s.Shadow = &service.Shadow{Share: get[float64](sh.Get("share")), Tolerance: get[float64](sh.Get("tolerance"))}
		m := r.shadow(answering, problem, sh.Get("model"))
		s.Shadow.Model = m.ref
		all = append(all, m)
	}
	takes, whole := r.request(all)
	s.Caller = r.caller(name, v.Get("caller"), all, takes, whole)
	r.servedAsTrained(s, v, all)
	if st := v.Get("sticky"); st != nil && !strings.HasPrefix(s.Sticky, "header:") && !r.spec.Broken(st.Path) {
		r.sent(st, s.Sticky, takes, whole, "the same caller could not be told again")
	}
	r.threshold(s, v, problem)
	r.limits(s, v)
	r.budgets(s, v)
	r.fallback(s, v.Get("fallback"), problem)
	r.predictionLog(s, v.Get("log"), takes, whole)
	if a := v.Get("auth"); a != nil {
		s.Auth = &service.Auth{Bearer: get[[]string](a.Get("bearer")), APIKey: get[[]string](a.Get("api_key"))}
		if len(s.Auth.Bearer)+len(s.Auth.APIKey) == 0 && !r.spec.Broken(a.Path) {
			r.addLabel(a.Path, diag.BadArgs, "auth without a secret").Because("nobody could call", `give bearer or api_key, as ["env:NAME"], or leave auth out`)
		}
	}
	if t := v.Get("tls"); t != nil {
		s.TLS = &service.TLS{Cert: text(t.Get("cert")), Key: text(t.Get("key")), ClientCA: text(t.Get("client_ca"))}
		r.beside(t, "the service speaks TLS with it", "cert", "key", "client_ca")
	}
}

// answering resolves which models answer: one, a split, or steps, of which the
// last is the last in the list.
func (r *resolver) answering(s *ir.Service, v *spec.Value) []served {
	var ways []string
	for _, f := range []string{"model", "split", "steps"} {
		if w := v.Get(f); w != nil && (text(w) != "" || len(w.List) > 0) || r.spec.Broken(v.Path+"."+f) {
			ways = append(ways, f)
		}
	}
	switch {
	case len(ways) == 0:
		r.addLabel(v.Path, diag.BadTraffic, "service %q has no model", s.Name).Because("nothing would answer", `give model: "NAME@ALIAS", split or steps`)
		return nil
	case len(ways) > 1:
		r.addLabel(v.Path+"."+ways[1], diag.BadTraffic, "service %q has %s and %s", s.Name, ways[0], ways[1]).Because("only one of them can answer", "keep one")
	}
	switch ways[0] {
	case "model":
		m := r.modelRef(v.Get("model"))
		s.Split = []service.Branch{{Name: m.ref.Alias, Model: m.ref, Weight: 100}}
		return []served{m}
	case "split":
		return r.split(s, v.Get("split"))
	}
	return r.steps(s, v.Get("steps"))
}

// split resolves branches, which differ and add up to 100 %.
func (r *resolver) split(s *ir.Service, v *spec.Value) []served {
	if v == nil {
		return nil
	}
	var out []served
	sum, named := 0.0, map[string]bool{}
	for _, item := range v.List {
		m := r.modelRef(item.Get("model"))
		b := service.Branch{Name: text(item.Get("name")), Model: m.ref, Weight: get[float64](item.Get("weight"))}
		sum += b.Weight
		at := item.Path + ".name"
		if b.Name == "" {
			b.Name, at = m.ref.Alias, item.Path+".model"
		}
		switch {
		case m.path != "" && slices.ContainsFunc(out, func(o served) bool { return o.ref == m.ref }):
			r.add(m.path, diag.BadTraffic, "%s has two branches", m.ref).Because("they would be one", "add their weights up, or name another version")
		case b.Name != "" && named[b.Name]:
			r.add(at, diag.BadTraffic, "two branches are called %q", b.Name).Because("metrics and logs could not tell them apart", `give one of them a name: "…"`)
		}
		named[b.Name] = true
		s.Split, out = append(s.Split, b), append(out, m)
	}
	if math.Abs(sum-100) > 1e-6 && !r.spec.Broken(v.Path) {
		r.addLabel(v.Path, diag.BadTraffic, "the weights add up to %s %%, not to 100 %%", strconv.FormatFloat(sum, 'g', 6, 64)).Because("every request goes to one branch", "")
	}
	return out
}

// steps resolves models that feed each other.
func (r *resolver) steps(s *ir.Service, v *spec.Value) []served {
	if v == nil {
		return nil
	}
	var out []served
	at := map[string]int{}
	read := map[string]bool{}
	faults := len(r.list)
	for i, item := range v.List {
		m := r.modelRef(item.Get("model"))
		st := service.Step{Name: text(item.Get("name")), Model: m.ref}
		if ins := item.Get("inputs"); ins != nil && len(ins.Fields) > 0 {
			st.Inputs, m.fed = map[string]string{}, map[string]bool{}
			for _, f := range ins.Fields {
				m.fed[f.Name], st.Inputs[f.Name] = true, text(f.Value)
				from, _, _ := strings.Cut(text(f.Value), ".")
				read[from] = true
				r.stepInput(m.model, f, v, at, out)
			}
		}
		if _, dup := at[st.Name]; dup && st.Name != "" {
			r.add(item.Path+".name", diag.StepUnfit, "two steps are called %q", st.Name).Because("which one feeds another could not be told", "rename one")
		} else {
			at[st.Name] = i
		}
		s.Steps, out = append(s.Steps, st), append(out, m)
	}
	if len(r.list) > faults || r.spec.Broken(v.Path) {
		return out // what reads what is not known
	}
	for i, st := range s.Steps {
		if i < len(s.Steps)-1 && !read[st.Name] {
			r.add(fmt.Sprintf("%s[%d].name", v.Path, i), diag.StepUnfit, "no step reads the output of step %q", st.Name).Because("only the last step answers", fmt.Sprintf(`feed a later step: inputs: "group.feature": "%s.…", or leave the step out`, st.Name))
		}
	}
	return out
}

// outputs are what a step gives of a task, by name; each is a number or a text a row.
// Tasks that give several numbers feed no step.
var outputs = map[string]map[string]types.Type{
	kind.Binary:     {"probability": types.Float},
	kind.Multiclass: {"class": types.String},
	kind.Regression: {"prediction": types.Float},
	kind.Count:      {"prediction": types.Float},
	kind.Anomaly:    {"score": types.Float},
	kind.Multilabel: {},
	kind.Quantile:   {},
}

// stepInput proves that a step's input is one of its model's, and that an earlier
// step gives what it takes. Steps so far are in before, by name in at.
func (r *resolver) stepInput(m *ir.Model, f *spec.Field, all *spec.Value, at map[string]int, before []served) {
	ft, known := r.features[f.Name]
	if !known {
		r.noFeature(r.spec.Label(f.Value.Path), f.Name)
	} else if m != nil {
		if raw, whole := r.raw(m); whole && !slices.Contains(raw, ft) {
			d := r.addLabel(f.Value.Path, diag.StepUnfit, "model %q is not given %q", m.Name, f.Name)
			if ft.Kind == ir.Derived {
				d.Because("it is computed", "feed the features that it is computed from")
			} else {
				d.Because("no input reads it", "name a feature that the model takes")
			}
			known = false
		}
	}
	step, output, ok := strings.Cut(text(f.Value), ".")
	if !ok || r.spec.Broken(f.Value.Path) {
		return
	}
	i, ok := at[step]
	if !ok {
		place := r.spec.Inside(f.Value.Path, 0, len(step))
		if slices.ContainsFunc(all.List, func(o *spec.Value) bool { return text(o.Get("name")) == step }) {
			r.list.Add(place, diag.StepUnfit, "step %q does not come before this one", step).Because("its output is not there yet", "move it up")
		} else {
			r.list.Add(place, diag.NoName, "no step %q%s", step, diag.Choices(step, keys(at))).Because("", "an input is an earlier step's output, as step.output")
		}
		return
	}
	from := before[i].model
	if from == nil || from.Problem == nil {
		return
	}
	gives, told := outputs[from.Problem.Task]
	t, ok := gives[output]
	switch {
	case told && len(gives) == 0:
		r.add(f.Value.Path, diag.StepUnfit, "step %q is of %s model, which feeds no step", step, diag.An(from.Problem.Task)).Because("it gives several numbers a row, and a feature is one", "")
	case told && !ok:
		r.list.Add(r.spec.Inside(f.Value.Path, len(step)+1, len(step)+1+len(output)), diag.NoName, "step %q has no output %q%s", step, output, diag.Suggest(output, keys(gives))).
			Because("", fmt.Sprintf("a step of %s model gives %s", diag.An(from.Problem.Task), list(keys(gives))))
	case ok && known && ft.Type != types.Invalid && ft.Type != t:
		r.add(f.Value.Path, diag.ExprType, "%s is %s, but feature %q is %s", text(f.Value), diag.An(t), ft.Name, diag.An(ft.Type)).Because("the model would be given what it was not trained with", "")
	}
}

// sameProblem proves that the branches of a split solve one problem, and returns
// that of the answer. It is nil where it is not known.
func (r *resolver) sameProblem(answering []served) *ir.Problem {
	if len(answering) == 0 {
		return nil
	}
	last := answering[len(answering)-1]
	if last.model == nil {
		return nil
	}
	if strings.Contains(last.path, ".split[") {
		for _, m := range answering[1:] {
			r.sameAs(answering[0], m)
		}
	}
	return last.model.Problem
}

// sameAs proves that two models solve one problem.
func (r *resolver) sameAs(a, b served) {
	if a.model != nil && b.model != nil && a.model.Problem != b.model.Problem {
		r.add(b.path, diag.BadTraffic, "model %q solves problem %q, but %q solves %q", b.model.Name, b.model.Problem.Name, a.model.Name, a.model.Problem.Name).
			Because("their answers mean different things", "name models of one problem")
	}
}

// shadow resolves the version that is compared with those that answer, or with the
// last step.
func (r *resolver) shadow(answering []served, problem *ir.Problem, v *spec.Value) served {
	m := r.modelRef(v)
	if m.path == "" || len(answering) == 0 {
		return m
	}
	beside := answering
	if strings.Contains(answering[0].path, ".steps[") {
		beside = answering[len(answering)-1:]
		m.fed = beside[0].fed
	}
	if slices.ContainsFunc(beside, func(o served) bool { return o.ref == m.ref }) {
		r.add(m.path, diag.BadTraffic, "%s is its own shadow", m.ref).Because("it would be compared with itself", "name another version")
		return m
	}
	if problem != nil {
		r.sameAs(beside[len(beside)-1], m)
	}
	return m
}

// request are the raw features of all of a service's models that no step gives,
// each once, and whether all are known.
func (r *resolver) request(all []served) (takes []*ir.Feature, whole bool) {
	whole = len(all) > 0
	for _, s := range all {
		raw, ok := s.takes(r)
		whole = whole && ok
		for _, f := range raw {
			if !slices.Contains(takes, f) {
				takes = append(takes, f)
			}
		}
	}
	return takes, whole
}

// patterns resolves names and "group.*" at v to features among some. What is a
// feature or a group and not among them goes to unfit.
func (r *resolver) patterns(v *spec.Value, among func(*ir.Feature) bool, from []*ir.Feature, unfit func(item *spec.Value, f *ir.Feature, g *ir.Group)) []string {
	if v == nil {
		return nil
	}
	var out []string
	add := func(f *ir.Feature) {
		if !slices.Contains(out, f.Name) {
			out = append(out, f.Name)
		}
	}
	for _, item := range v.List {
		name := text(item)
		if r.spec.Broken(item.Path) {
			continue
		}
		group, star := strings.CutSuffix(name, ".*")
		if !star {
			f, ok := r.features[name]
			switch {
			case !ok:
				r.noFeature(r.spec.At(item.Path), name)
			case slices.Contains(from, f) && among(f):
				add(f)
			default:
				unfit(item, f, f.Group)
			}
			continue
		}
		g, ok := r.groups[group]
		if !ok {
			if !r.spec.Broken("features." + group) {
				r.add(item.Path, diag.NoName, "no feature group %q%s", group, diag.Choices(group, keys(r.groups))).Because("", "declare it under features, or mend the name")
			}
			continue
		}
		any := false
		for _, f := range from {
			if f.Group == g && among(f) {
				any = true
				add(f)
			}
		}
		if !any {
			unfit(item, nil, g)
		}
	}
	slices.Sort(out)
	return out
}

// caller resolves the snapshot features that the caller sends, and proves that
// they are such.
func (r *resolver) caller(name string, v *spec.Value, all []served, takes []*ir.Feature, whole bool) []string {
	snapshot := func(f *ir.Feature) bool { return f.Kind == ir.Snapshot }
	return r.patterns(v, snapshot, takes, func(item *spec.Value, f *ir.Feature, g *ir.Group) {
		what, why, mend := text(item), "no model of the service takes it", "leave it out"
		switch {
		case g.Kind == ir.Request:
			why, mend = "request features come with the request anyway", "leave it out"
		case g.Kind == ir.Derived:
			why, mend = "the model computes it", "name the snapshot features that it is computed from"
		case !whole || r.spec.Broken(g.Path):
			return // what the models take is not known
		case f != nil && slices.ContainsFunc(all, func(s served) bool { return s.fed[f.Name] }):
			why = "an earlier step gives it"
		}
		r.add(item.Path, diag.CallerUnfit, "service %q does not take %q from the caller", name, what).Because(why, mend)
	})
}

// sent proves that a feature comes with the request.
func (r *resolver) sent(v *spec.Value, name string, takes []*ir.Feature, whole bool, why string) {
	f, ok := r.features[name]
	switch {
	case !ok:
		r.noFeature(r.spec.At(v.Path), name)
	case whole && !slices.Contains(takes, f):
		r.add(v.Path, diag.BadTraffic, "feature %q does not come with the request", name).Because(why, "name a request feature or one of caller that a model takes, or a header: \"header:NAME\"")
	}
}

// servedAsTrained proves that a service can get every input of its models: that
// the request brings it, or that it is computed from what the request brings, in
// the model.
func (r *resolver) servedAsTrained(s *ir.Service, v *spec.Value, all []served) {
	told := map[*ir.Feature]bool{}
	once := func(f *ir.Feature) bool {
		was := told[f]
		told[f] = true
		return !was
	}
	for _, m := range all {
		if m.model == nil {
			continue
		}
		also := func(d *diag.Diagnostic) {
			d.Also = append(d.Also, diag.Note{At: r.spec.At(m.path), Text: fmt.Sprintf("service %q answers with model %q here", s.Name, m.model.Name)})
		}
		for _, in := range m.model.AllInputs() {
			for _, f := range offline(in.Feature) {
				_, bad := expr.Online(f.Expr)
				fromRequest := slices.ContainsFunc(f.Origins(), func(o *ir.Feature) bool { return o.Kind == ir.Request })
				if bad == nil || fromRequest || !once(f) {
					continue // what it reads is at fault, or `online` has told it
				}
				src := text(r.spec.Root.Get("features").Get(f.Group.Name).Get("exprs").Get(strings.TrimPrefix(f.Name, f.Group.Name+".")))
				also(r.list.Add(r.spec.Inside(f.Path, bad.Start, bad.End), diag.OfflineServed, "%s cannot run online, and service %q serves %q", src[bad.Start:bad.End], s.Name, f.Name).
					Because("it was computed in SQL for training, and a service runs the model alone; "+expr.Why(bad), "use operations that lower to ONNX (`mlc explain MLC2111` lists them), or compute it in the source"))
			}
		}
		if r.spec.Broken(v.Path + ".caller") {
			continue
		}
		raw, _ := m.takes(r)
		for _, f := range raw {
			if f.Kind == ir.Snapshot && !slices.Contains(s.Caller, f.Name) && once(f) {
				also(r.add(f.Path, diag.NotServed, "service %q can neither look up nor receive %q", s.Name, f.Name).
					Because("it is a snapshot: training joined it, and no online store holds it", fmt.Sprintf(`have the caller send it: serving.%s.caller: ["%s.*"]`, s.Name, f.Group.Name)))
			}
		}
	}
}

// offline are the derived features that f is or reads and that no graph computes.
func offline(f *ir.Feature) []*ir.Feature {
	if f.Kind != ir.Derived || f.Online || f.Expr == nil {
		return nil
	}
	out := []*ir.Feature{f}
	for _, u := range f.Uses {
		out = append(out, offline(u)...)
	}
	return out
}

// threshold reads what is decided as true; without one that is each version's own.
func (r *resolver) threshold(s *ir.Service, v *spec.Value, p *ir.Problem) {
	if p == nil || p.Task == "" {
		return
	}
	t := v.Get("threshold")
	switch {
	case p.Task == kind.Binary || p.Task == kind.Anomaly:
		s.Threshold = get[float64](t)
	case t != nil:
		r.addLabel(t.Path, diag.BadArgs, "a threshold for problem %q, which is %s", p.Name, p.Task).Because("it decides between yes and no", "leave it out")
	}
}

// rate is requests in a second.
func (r *resolver) rate(v *spec.Value) (perSecond float64) {
	perSecond, _ = r.quota(v)
	return perSecond
}

// quota is a rate, and the number of its unit: 10 of 10/m.
func (r *resolver) quota(v *spec.Value) (perSecond, n float64) {
	num, per, ok := strings.Cut(text(v), "/")
	if !ok {
		return 0, 0
	}
	n, err := strconv.ParseFloat(num, 64)
	if err != nil || n == 0 || math.IsInf(n, 0) {
		r.add(v.Path, diag.BadValue, "%q is no rate", text(v)).Because("", "write a rate above nothing, like 200/s")
		return 0, 0
	}
	return n / map[string]float64{"s": 1, "m": 60, "h": 3600}[per], n
}

// span is a duration above nothing.
func (r *resolver) span(v *spec.Value) time.Duration {
	n := len(r.list)
	d := r.duration(v)
	if d == 0 && text(v) != "" && len(r.list) == n {
		r.add(v.Path, diag.BadValue, "a time of nothing").Because("nothing could be done in it", "")
	}
	return d
}

// size is a number of bytes above nothing.
func (r *resolver) size(v *spec.Value) int64 {
	if text(v) == "" {
		return 0
	}
	n, err := types.ParseSize(text(v))
	if err != nil {
		r.add(v.Path, diag.BadValue, "%v", err)
	} else if n == 0 {
		r.add(v.Path, diag.BadValue, "a size of nothing")
	}
	return n
}

// networks reads addresses, alone or as networks.
func (r *resolver) networks(v *spec.Value) []netip.Prefix {
	if v == nil {
		return nil
	}
	var out []netip.Prefix
	for _, x := range v.List {
		p, err := netip.ParsePrefix(text(x))
		if a, aerr := netip.ParseAddr(text(x)); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			r.add(x.Path, diag.BadValue, "%q is no address", text(x)).Because("", `write an address like "10.0.0.7", or a network like "10.0.0.0/8"`)
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}

// limits reads the bounds of a service, with defaults.
func (r *resolver) limits(s *ir.Service, v *spec.Value) {
	l, b, res := v.Get("limits"), v.Get("batching"), v.Get("resources")
	perClient, burst := r.quota(l.Get("per_client"))
	s.Limits = service.Limits{Body: r.size(l.Get("body")), Rows: get[int](l.Get("rows")), Concurrent: get[int](l.Get("concurrent")),
		PerClient: perClient, PerClientBurst: int(math.Ceil(min(burst, 1<<30))), Read: service.Duration(r.span(l.Get("read"))), Proxies: r.networks(l.Get("proxies"))}
	s.Batching = service.Batching{MaxRows: get[int](b.Get("max_rows")), MaxDelay: service.Duration(r.duration(b.Get("max_delay"))), Queue: get[int](b.Get("queue"))}
	s.Deadline, s.P99 = service.Duration(r.span(v.Get("deadline"))), service.Duration(r.span(v.Get("latency").Get("p99")))
	s.Expected, s.Peak = r.rate(v.Get("load").Get("expected")), r.rate(v.Get("load").Get("peak"))
	if v.Get("load").Get("peak") == nil {
		s.Peak = s.Expected
	}
	s.Replicas = service.Replicas{Min: get[int](v.Get("replicas").Get("min")), Max: get[int](v.Get("replicas").Get("max"))}
	if v.Get("replicas").Get("max") == nil {
		s.Replicas.Max = s.Replicas.Min
	}
	s.CPU, s.Memory = get[int](res.Get("cpu")), r.size(res.Get("memory"))
}

// budgets proves that times, loads and bounds can be kept together. A value that
// is in error is zero, and proves nothing.
func (r *resolver) budgets(s *ir.Service, v *spec.Value) {
	told := types.FormatDuration
	deadline, p99, after := s.Deadline.Std(), s.P99.Std(), time.Duration(0)
	if f := v.Get("fallback").Get("after"); f != nil {
		if d, err := types.ParseDuration(text(f)); err == nil {
			after = d
		}
		if deadline > 0 && after >= deadline {
			r.add(f.Path, diag.ServiceBudget, "the fallback answers after %s, and the deadline is %s", told(after), told(deadline)).
				Because("the request has failed by then", "answer earlier, or leave after out: then the fallback is the answer at the deadline")
			after = 0
		}
	}
	if deadline > 0 && p99 > deadline {
		r.add(v.Path+".latency.p99", diag.ServiceBudget, "p99 is %s, and the deadline %s", told(p99), told(deadline)).
			Because("a request that takes longer than the deadline fails", "raise deadline, or lower p99")
		p99 = 0
	}
	delay, bound, name := s.Batching.MaxDelay.Std(), deadline, "the deadline"
	if p99 > 0 {
		bound, name = p99, "p99"
	}
	if after > 0 && (bound == 0 || after < bound) {
		bound, name = after, "the time after which the fallback answers"
	}
	if bound > 0 && delay >= bound {
		r.add(v.Path+".batching.max_delay", diag.ServiceBudget, "a request waits up to %s for others, and %s is %s", told(delay), name, told(bound)).
			Because("no time would be left for the model", "lower max_delay")
	}
	if s.Peak < s.Expected && v.Get("load").Get("peak") != nil && s.Peak > 0 {
		r.add(v.Path+".load.peak", diag.ServiceBudget, "the peak of %s is below the expected load of %s", text(v.Get("load").Get("peak")), text(v.Get("load").Get("expected")))
	}
	if s.Replicas.Max > 0 && s.Replicas.Max < s.Replicas.Min {
		r.add(v.Path+".replicas.max", diag.ServiceBudget, "at most %d replicas, and at least %d", s.Replicas.Max, s.Replicas.Min)
	}
	if q := s.Batching.Queue; q > 0 && q < max(s.Batching.MaxRows, s.Limits.Rows) {
		what, n := "a request may have", s.Limits.Rows
		if s.Batching.MaxRows > n {
			what, n = "a batch may have", s.Batching.MaxRows
		}
		r.add(v.Path+".batching.queue", diag.ServiceBudget, "the queue holds %d rows, and %s %d", q, what, n).
			Because("what does not fit the queue is refused, whatever the load", "raise batching.queue, or lower limits.rows and batching.max_rows")
	}
	if all := float64(s.Limits.Body) * float64(s.Limits.Concurrent); s.Memory > 0 && all > float64(s.Memory) {
		r.addLabel(v.Path+".limits", diag.ServiceBudget, "%d requests at once of up to %s each need more than the %s of a replica", s.Limits.Concurrent, types.FormatSize(s.Limits.Body), types.FormatSize(s.Memory)).
			Because("callers could exhaust its memory", "lower limits.body or limits.concurrent, or raise resources.memory")
	}
}

// answers are the outputs that a fallback can give of a task.
var answers = map[string][]string{kind.Binary: {"probability"}, kind.Multiclass: {"class", "probabilities"}, kind.Multilabel: {"probabilities"},
	kind.Regression: {"prediction"}, kind.Quantile: {"quantiles"}, kind.Count: {"prediction"}, kind.Anomaly: {"score"}}

// fallback proves that the answer is one that the model could give.
func (r *resolver) fallback(s *ir.Service, v *spec.Value, p *ir.Problem) {
	if v == nil {
		return
	}
	s.Fallback = &service.Fallback{After: service.Duration(r.span(v.Get("after"))), Answer: get[map[string]any](v.Get("answer"))}
	if b := v.Get("breaker"); b != nil {
		s.Fallback.Breaker = &service.Breaker{Errors: get[float64](b.Get("errors")), Over: service.Duration(r.span(b.Get("over"))), Least: get[int](b.Get("least"))}
	}
	a := v.Get("answer")
	if a == nil || p == nil || p.Task == "" {
		return
	}
	fit := answers[p.Task]
	if len(a.Fields) == 0 && !r.spec.Broken(a.Path) {
		r.addLabel(a.Path, diag.FallbackUnfit, "the fallback answers nothing").Because("", "give "+list(fit))
	}
	for _, f := range a.Fields {
		if !slices.Contains(fit, f.Name) {
			r.addLabel(f.Value.Path, diag.FallbackUnfit, "%s model has no output %q", diag.An(p.Task), f.Name).Because("callers get from the fallback what they get from the model", "give "+list(fit))
		}
	}
	switch p.Task {
	case kind.Multiclass:
		r.classes(p, a)
	case kind.Multilabel:
		r.labels(p, a.Get("probabilities"))
	case kind.Quantile:
		r.fallbackQuantiles(p, a.Get("quantiles"))
	case kind.Count:
		if c := a.Get("prediction"); get[float64](c) < 0 {
			r.add(c.Path, diag.FallbackUnfit, "a count of %s", strconv.FormatFloat(get[float64](c), 'g', 6, 64)).Because("nothing happens less often than never", "give a number from 0 on")
		}
	}
}

// labels proves the labels of a multilabel problem's fallback.
func (r *resolver) labels(p *ir.Problem, probs *spec.Value) {
	declared := r.spec.Root.Get("problems").Get(p.Name).Get("label").Get("exprs")
	if probs == nil || declared == nil || r.spec.Broken(declared.Path) {
		return
	}
	var names []string
	for _, f := range declared.Fields {
		names = append(names, f.Name)
	}
	for _, f := range probs.Fields {
		if !slices.Contains(names, f.Name) {
			r.addLabel(f.Value.Path, diag.FallbackUnfit, "problem %q has no label %q%s", p.Name, f.Name, diag.Suggest(f.Name, names)).Because("", "the labels are "+list(names))
		}
	}
}

// fallbackQuantiles proves that a fallback gives each quantile of the problem, and
// that they do not fall.
func (r *resolver) fallbackQuantiles(p *ir.Problem, given *spec.Value) {
	if given == nil || r.spec.Broken(given.Path) || len(p.Quantiles) == 0 {
		return
	}
	names := make([]string, len(p.Quantiles))
	for i, q := range p.Quantiles {
		names[i] = strconv.FormatFloat(q, 'f', -1, 64)
	}
	for _, f := range given.Fields {
		if !slices.Contains(names, f.Name) {
			r.addLabel(f.Value.Path, diag.FallbackUnfit, "problem %q has no quantile %q%s", p.Name, f.Name, diag.Suggest(f.Name, names)).Because("", "the quantiles are "+list(names))
			return
		}
	}
	for i, n := range names {
		v := given.Get(n)
		if v == nil {
			r.addLabel(given.Path, diag.FallbackUnfit, "the fallback gives no quantile %s", n).Because("callers get from the fallback what they get from the model", "")
			return
		}
		if i > 0 && get[float64](v) < get[float64](given.Get(names[i-1])) {
			r.addLabel(v.Path, diag.FallbackUnfit, "quantile %s is below quantile %s", n, names[i-1]).Because("more values stay below a higher quantile, so it is no smaller", "")
			return
		}
	}
}

// classes proves the classes of a fallback, as far as the label declares them, and
// its probabilities.
func (r *resolver) classes(p *ir.Problem, a *spec.Value) {
	known := classesOf(p)
	class := func(name string, at diag.Range) {
		if known != nil && !slices.Contains(known, name) {
			r.list.Add(at, diag.FallbackUnfit, "problem %q has no class %q%s", p.Name, name, diag.Suggest(name, known)).Because("", "the classes are "+list(known))
		}
	}
	if c := a.Get("class"); c != nil {
		class(text(c), r.spec.At(c.Path))
	}
	probs := a.Get("probabilities")
	if probs == nil || r.spec.Broken(probs.Path) {
		return
	}
	sum := 0.0
	for _, f := range probs.Fields {
		class(f.Name, r.spec.Label(f.Value.Path))
		sum += get[float64](f.Value)
	}
	if math.Abs(sum-1) > 1e-6 {
		r.addLabel(probs.Path, diag.FallbackUnfit, "the probabilities add up to %s, not to 1", strconv.FormatFloat(sum, 'g', 6, 64))
		return
	}
	c := a.Get("class")
	if c == nil || r.spec.Broken(c.Path) || known != nil && !slices.Contains(known, text(c)) {
		return
	}
	for _, f := range probs.Fields {
		if get[float64](f.Value) > get[float64](probs.Get(text(c))) {
			r.add(c.Path, diag.FallbackUnfit, "the class is %q, and %q is likelier", text(c), f.Name).Because("a model's class is the likeliest one", "mend one of them, or leave class out: it follows from the probabilities")
			return
		}
	}
}

// classesOf are the classes that a label can have, or nil where only the data
// tells.
func classesOf(p *ir.Problem) []string {
	if len(p.Label.Exprs) != 1 {
		return nil
	}
	e := p.Label.Exprs[0].Expr
	switch {
	case e.Type == types.Bool:
		return []string{"false", "true"}
	case e.Op != expr.OpColumn:
		return nil
	}
	c := p.Label.Source.Column(e.Name)
	if c == nil {
		return nil
	}
	var out []string
	for _, x := range c.In {
		switch x := x.(type) {
		case string:
			out = append(out, x)
		case float64:
			out = append(out, strconv.FormatFloat(x, 'f', -1, 64))
		}
	}
	return out
}

func (r *resolver) predictionLog(s *ir.Service, v *spec.Value, takes []*ir.Feature, whole bool) {
	if v == nil {
		return
	}
	s.Log = &service.Log{Sample: get[float64](v.Get("sample")), Dir: text(v.Get("dir")), Kafka: get[[]string](v.Get("kafka")), Topic: text(v.Get("topic")),
		Rows: get[int](v.Get("rows")), Every: service.Duration(r.span(v.Get("every"))), Buffer: get[int](v.Get("buffer"))}
	s.Log.Mask = r.patterns(v.Get("mask"), func(*ir.Feature) bool { return true }, takes, func(item *spec.Value, f *ir.Feature, g *ir.Group) {
		if whole && !r.spec.Broken(g.Path) {
			r.add(item.Path, diag.BadArgs, "%q is in no request of service %q", text(item), s.Name).Because("only what comes with a request is logged", "name features that the models are given")
		}
	})
	dir, brokers, topic := v.Get("dir"), v.Get("kafka"), v.Get("topic")
	if brokers != nil && len(brokers.List) == 0 {
		brokers = nil
	}
	switch {
	case r.spec.Broken(v.Path + ".dir"), r.spec.Broken(v.Path + ".kafka"), r.spec.Broken(v.Path + ".topic"):
	case dir != nil && (brokers != nil || topic != nil):
		r.addLabel(dir.Path, diag.BadArgs, "a log to a folder and to Kafka").Because("it goes to one place", "leave out dir, or kafka and topic")
	case brokers != nil && topic == nil:
		r.addLabel(brokers.Path, diag.BadArgs, "a log to Kafka without a topic").Because("", `add topic: "…"`)
	case brokers == nil && topic != nil:
		r.addLabel(topic.Path, diag.BadArgs, "a topic without Kafka's brokers").Because("", `add kafka: ["host:9092"]`)
	case brokers == nil && v.Get("tls") != nil:
		r.addLabel(v.Path+".tls", diag.BadArgs, "tls without Kafka's brokers").Because("only Kafka is called", `add kafka: ["host:9093"] and a topic, or leave tls out`)
	case brokers == nil && v.Get("sasl") != nil:
		r.addLabel(v.Path+".sasl", diag.BadArgs, "sasl without Kafka's brokers").Because("only Kafka is called", `add kafka: ["host:9093"] and a topic, or leave sasl out`)
	case dir == nil && brokers == nil:
		s.Log.Dir = ".mlc/predictions/" + s.Name
	}
	r.clientTLS(s, v.Get("tls"))
	if a := v.Get("sasl"); a != nil {
		s.Log.SASL = &service.SASL{Mechanism: text(a.Get("mechanism")), Username: text(a.Get("username")), Password: text(a.Get("password"))}
		if s.Log.SASL.Mechanism == service.SASLPlain && v.Get("tls") == nil && !r.spec.Broken(v.Path+".tls") {
			r.add(a.Path+".mechanism", diag.BadArgs, "SASL plain without TLS").Because("the password crosses the network as it is", "add tls: {}, or take scram-sha-256 or scram-sha-512").Severity = diag.Warning
		}
	}
}

// beside proves that the files that fields name are there, as far as they are beside the
// spec: those at absolute paths are where the service runs.
func (r *resolver) beside(v *spec.Value, why string, fields ...string) {
	for _, name := range fields {
		if path := text(v.Get(name)); path != "" && !filepath.IsAbs(path) && !r.spec.Broken(v.Path+"."+name) {
			r.file(v.Path+"."+name, path, why+"; a file that is only where the service runs has an absolute path")
		}
	}
}

// clientTLS proves that a certificate has its key, and that both are there.
func (r *resolver) clientTLS(s *ir.Service, v *spec.Value) {
	if v == nil {
		return
	}
	s.Log.TLS = &service.ClientTLS{CA: text(v.Get("ca")), Cert: text(v.Get("cert")), Key: text(v.Get("key"))}
	cert, key := v.Get("cert"), v.Get("key")
	switch {
	case r.spec.Broken(v.Path + ".cert"), r.spec.Broken(v.Path + ".key"):
	case cert != nil && key == nil:
		r.addLabel(cert.Path, diag.BadArgs, "a certificate without its key").Because("only who has the key can show it", `add key: "…"`)
	case cert == nil && key != nil:
		r.addLabel(key.Path, diag.BadArgs, "a key without its certificate").Because("the certificate is what is shown", `add cert: "…"`)
	}
	r.beside(v, "Kafka's brokers are called with it", "ca", "cert", "key")
}

func (r *resolver) batch(name string, v *spec.Value) {
	m := r.modelRef(v.Get("model"))
	b := &ir.Batch{Path: v.Path, Batch: service.Batch{Format: service.Format, System: r.sys.Name, Name: name, Model: m.ref,
		Output: text(v.Get("output").Get("path")), Schedule: text(v.Get("schedule")), Chunk: get[int](v.Get("chunk")), Keep: get[[]string](v.Get("keep"))}}
	if sch := v.Get("schedule"); sch != nil {
		if _, err := service.ParseSchedule(b.Schedule); err != nil {
			r.add(sch.Path, diag.BadSchedule, "%q is no schedule: %v", b.Schedule, err).Because("", `write cron's five fields in UTC, such as "0 3 * * *" for every day at 3:00`)
		}
	}
	src, ok := ref(r, "source", "sources", r.sources, v.Get("source"))
	if ok {
		b.Source, b.Rows = src.Name, src
		r.batchColumns(m, src, v.Get("source"))
		r.batchKeep(src, v.Get("keep"))
	}
	r.batchOutput(b, v.Get("output").Get("path"))
	r.sys.Batches = append(r.sys.Batches, b)
}

// batchColumns proves that a source's rows bring what a model takes, by the names
// that mlc predict reads: the feature's, or a request feature's column.
func (r *resolver) batchColumns(m served, src *ir.Source, v *spec.Value) {
	if m.model == nil {
		return
	}
	raw, _ := r.raw(m.model)
	var missing []string
	snapshots := false
	for _, f := range raw {
		names := []string{f.Name}
		if f.Kind == ir.Request {
			names = append(names, f.Column.Name)
		}
		var c *ir.Column
		unsure := false
		for _, n := range names {
			if c == nil {
				c = src.Column(n)
				unsure = unsure || r.unsure(src, n)
			}
		}
		switch {
		case c == nil && !unsure:
			missing = append(missing, strconv.Quote(names[len(names)-1]))
			snapshots = snapshots || f.Kind == ir.Snapshot
		case c != nil && c.Type != f.Type && c.Type != types.Invalid && f.Type != types.Invalid && (f.Type != types.Float || c.Type != types.Int):
			d := r.add(c.Path+".type", diag.BatchUnfit, "column %q of source %q is %s, but model %q takes %q as %s", c.Name, src.Name, diag.An(c.Type), m.model.Name, f.Name, diag.An(f.Type)).
				Because("the model would be given what it was not trained with", "")
			d.Also = append(d.Also, diag.Note{At: r.spec.At(v.Path), Text: "its rows are predicted here"})
		}
	}
	if len(missing) == 0 {
		return
	}
	why, mend := "a batch reads features from the columns of its source", fmt.Sprintf("declare them in sources.%s.columns, or name another source", src.Name)
	if snapshots {
		why, mend = why+", and joins no snapshots", `name a source whose rows bring them, snapshot features in columns named "group.feature"`
	}
	cols := "columns"
	if len(missing) == 1 {
		cols = "column"
	}
	r.add(v.Path, diag.BatchUnfit, "source %q has no %s %s, which model %q takes", src.Name, cols, strings.Join(missing, ", "), m.model.Name).Because(why, mend)
}

// batchKeep proves that the columns to keep are there, each once, and that none has a
// name of mlc's own. What the model's outputs are called is its version's to tell.
func (r *resolver) batchKeep(src *ir.Source, v *spec.Value) {
	if v == nil {
		return
	}
	seen := map[string]bool{"file": true, "row": true}
	for _, x := range v.List {
		name := text(x)
		switch {
		case src.Column(name) == nil && !r.unsure(src, name):
			r.add(x.Path, diag.NoName, "source %q has no column %q%s", src.Name, name, diag.Suggest(name, src.ColumnNames())).Because("it is copied from there", "")
		case strings.HasPrefix(name, "_"):
			r.add(x.Path, diag.BadArgs, "column %q begins with an underscore", name).Because("such names are mlc's own", "leave it out")
		case seen[strings.ToLower(name)]:
			r.add(x.Path, diag.BadArgs, "column %q is among the predictions already", name).Because("every output has file and row, and a column has one name", "leave it out, or rename it in the source")
		}
		seen[strings.ToLower(name)] = true
	}
}

// batchOutput proves that predictions write over no source and no other batch.
func (r *resolver) batchOutput(b *ir.Batch, v *spec.Value) {
	if b.Output == "" || r.spec.Broken(v.Path) {
		return
	}
	abs := func(p string) string {
		if filepath.IsAbs(p) {
			return filepath.Clean(p)
		}
		return filepath.Join(r.spec.Dir, p)
	}
	out := abs(b.Output)
	for _, s := range r.sys.Sources {
		pattern := text(r.spec.Root.Get("sources").Get(s.Name).Get("path"))
		if hit, err := filepath.Match(abs(pattern), out); pattern != "" && err == nil && hit {
			r.add(v.Path, diag.BadArgs, "batch %q would write into source %q", b.Name, s.Name).Because("predictions would be read as data", "name another file")
		}
	}
	for _, o := range r.sys.Batches {
		if abs(o.Output) == out {
			r.add(v.Path, diag.BadArgs, "batches %q and %q write the same file", o.Name, b.Name).Because("one would replace the other's", "name another file")
		}
	}
}
