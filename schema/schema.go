// Package schema holds the language of specs as CUE: the core definitions here,
// and the kinds' own, which Assemble joins to them to the one module that mlc
// enforces and users import. It is a leaf.
package schema

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"regexp"
	"sort"
	"strings"
)

//go:embed core/*.cue
var core embed.FS

// Module is the CUE module's path; users import Module's Package.
const (
	Module  = "mlc.dev@v0"
	Package = "mlc.dev/schema"
	release = "v0.1.0"
)

// Kind is one choice of a family as the schema sees it.
type Kind struct {
	Family string // lower case: source, trainer, encoder, split, metric, calibrator
	Name   string // what users write after kind:
	Def    string // the definition's name: #GBDT
	Source string // CUE of package schema that holds the definition
	// Baseline tells whether a trainer can be a problem's baseline.
	Baseline bool
}

// Files is an assembled module: content by slash-separated path.
type Files map[string][]byte

// Assemble returns the module's files for a set of kinds.
func Assemble(kinds []Kind) Files {
	out := Files{"cue.mod/module.cue": []byte("module: \"" + Module + "\"\nlanguage: version: \"v0.17.0\"\n")}
	names, err := fs.Glob(core, "core/*.cue")
	if err != nil {
		panic(err) // constant pattern
	}
	for _, n := range names {
		b, err := core.ReadFile(n)
		if err != nil {
			panic(err) // embedded
		}
		out["schema/"+strings.TrimPrefix(n, "core/")] = b
	}
	families := map[string][]Kind{}
	for _, k := range kinds {
		out[fmt.Sprintf("schema/%s_%s.cue", k.Family, k.Name)] = []byte(k.Source)
		families[k.Family] = append(families[k.Family], k)
		if k.Baseline {
			families["baseline"] = append(families["baseline"], k)
		}
	}
	out["schema/kinds.cue"] = dispatch(families)
	return out
}

// docs says what each family is; a family without a text would be a mistake.
var docs = map[string]string{
	"source":     "is a table that data comes from; its kind says how it is read.",
	"trainer":    "is what learns; its kind says how.",
	"baseline":   "is the simple model that has to be beaten.",
	"encoder":    "turns a feature into numbers; its kind says how.",
	"split":      "says which rows train, validate and test.",
	"calibrator": "makes probabilities honest; its kind says how.",
	"metric":     "is a metric that a problem brings along; its kind says how it is measured.",
}

// dispatch writes, for each family, the definition that chooses by kind.
func dispatch(families map[string][]Kind) []byte {
	names := make([]string, 0, len(families))
	for f := range families {
		names = append(names, f)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("package schema\n")
	for _, f := range names {
		ks := families[f]
		sort.Slice(ks, func(i, j int) bool { return ks[i].Name < ks[j].Name })
		title := strings.ToUpper(f[:1]) + f[1:]
		choices, quoted := make([]string, len(ks)), make([]string, len(ks))
		for i, k := range ks {
			choices[i], quoted[i] = k.Name, fmt.Sprintf("%q", k.Name)
		}
		or := choices[0]
		if n := len(choices); n > 1 {
			or = strings.Join(choices[:n-1], ", ") + " or " + choices[n-1]
		}
		first := "kind!: "
		if f == "split" {
			first = "kind: *\"random\" | "
		}
		fmt.Fprintf(&b, "\n// #%s %s\n#%s: {\n\t%s%s | error(\"kind must be %s\")\n\t#%sKinds[kind]\n}\n\n#%sKinds: {\n", title, docs[f], title, first, strings.Join(quoted, " | "), or, f, f)
		for _, k := range ks {
			fmt.Fprintf(&b, "\t%s: %s\n", k.Name, k.Def)
		}
		b.WriteString("}\n")
	}
	return []byte(b.String())
}

// Version is the module version that names these very files: CUE's cache holds
// a version for good, so a change of content has to change it.
func (f Files) Version() string {
	h := sha256.New()
	for _, n := range f.Names() {
		fmt.Fprintf(h, "%s %d\n", n, len(f[n]))
		h.Write(f[n])
	}
	return release + "-dev.h" + hex.EncodeToString(h.Sum(nil))[:12]
}

// Names returns the paths in order.
func (f Files) Names() []string {
	out := make([]string, 0, len(f))
	for n := range f {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

var definition = regexp.MustCompile(`(?m)^(#[A-Za-z]+):`)

// Permissive returns a module with the same definitions, all of which allow
// anything: what users wrote can be read through it when it is wrong.
func (f Files) Permissive() Files {
	names := map[string]bool{}
	for n, b := range f {
		if strings.HasSuffix(n, "module.cue") {
			continue
		}
		for _, m := range definition.FindAllSubmatch(b, -1) {
			names[string(m[1])] = true
		}
	}
	all := make([]string, 0, len(names))
	for n := range names {
		all = append(all, n)
	}
	sort.Strings(all)
	return Files{"cue.mod/module.cue": f["cue.mod/module.cue"], "schema/schema.cue": []byte("package schema\n\n" + strings.Join(all, ": _\n") + ": _\n")}
}
