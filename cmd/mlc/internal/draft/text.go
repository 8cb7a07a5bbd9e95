package draft

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
)

// text writes the spec, in no standard form yet.
func (t *table) text(name, path string, p *problem) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	note := func(s string) {
		if s != "" {
			w("// %s", s)
		}
	}
	w("package %s\n\nimport \"mlc.dev/schema\"\n", name)
	w("// Drafted from the %d rows of %s. It says what is\n// in them, not what is right: read it, mend it, then `mlc vet` and `mlc apply`.", t.rows+t.aside, quote(filepath.Base(path)))
	w("system: schema.#System & {\nname: %s\ngoal: %s\n", quote(name), quote("Predict "+p.label.name+"."))

	problem := Ident(p.label.name, "label_")
	w("problems: %s: {\nkind: %s", field(problem), quote(p.kind))
	if p.guessed {
		note("The last column, for want of a --label.")
	}
	note(p.note)
	at := ""
	if p.at != nil {
		at = ", at: " + quote(p.at.name)
	}
	w("label: {source: \"rows\", expr: %s%s}\nbaseline: kind: \"prior\"", quote(p.expr), at)
	gates := make([]string, len(p.gates))
	for i, g := range p.gates {
		gates[i] = fmt.Sprintf("%s: over_baseline: %s", g.metric, format(g.over))
	}
	w("metrics: {primary: %s, offline: {%s}}\n}\n", quote(p.primary), strings.Join(gates, ", "))

	w("sources: rows: {\nkind: \"file\"\npath: %s", quote(path))
	if t.args.Format != "auto" {
		w("format: %s", quote(t.args.Format))
	}
	if t.args.Delimiter != "" {
		w("delimiter: %s", quote(t.args.Delimiter))
	}
	if t.args.Encoding != "" {
		w("encoding: %s", quote(t.args.Encoding))
	}
	if !t.args.Header {
		w("// The first line is a row: name the columns here, in their order.\nheader: false")
	}
	if len(t.args.NullValues) > 1 {
		w("null_values: %s", list(t.args.NullValues))
	}
	for _, l := range t.left {
		note(fmt.Sprintf("Column %s is not read: it %s.", quote(l.name), l.why))
	}
	w("columns: {")
	var features []string
	var texts []*column
	for _, c := range t.cols {
		note(c.badNote)
		note(c.note)
		w("%s: %s", field(c.name), c.declaration())
		if !c.out && c != p.label {
			features = append(features, c.name)
			if c.words > 0 {
				texts = append(texts, c)
			}
		}
	}
	w("}\n}\n")

	w("// What is known when a prediction is made.")
	w("features: row: {kind: \"request\", source: \"rows\", columns: %s}\n", list(features))

	w("models: %s: {\nproblem: %s", field(problem), quote(problem))
	if len(texts) == 0 {
		w("inputs: \"row.*\": {}")
	} else {
		w("inputs: {\n\"row.*\": {}")
		for _, c := range texts {
			note(fmt.Sprintf("Free text, %.0f words on average and seldom the same: its words become columns.", c.words))
			w("%s: encode: [%s]", quote("row."+c.name), t.encoder(len(texts)))
		}
		w("}")
	}
	if p.timeless != "" {
		note("No split by time: " + p.timeless + ".")
	}
	switch {
	case p.at != nil && p.validation > 0:
		w("split: {kind: \"time\", validation: %s, test: %s}", quote(types.FormatDuration(p.validation)), quote(types.FormatDuration(p.test)))
	case p.at != nil:
		w("split: {kind: \"time\", test: %s}", quote(types.FormatDuration(p.test)))
	case p.kind == kind.Regression:
		w("split: kind: \"random\"")
	default:
		w("split: kind: \"stratified\"")
	}
	switch {
	case len(texts) > 0:
		w("// Words make many columns of zeros, which a linear model passes over.\ntrainer: kind: \"linear\"")
	case t.rows < smallTable:
		w("// Few rows need small leaves.\ntrainer: {kind: \"gbdt\", min_rows: %d}", max(2, t.rows/40))
	default:
		w("trainer: kind: \"gbdt\"")
	}
	w("}\n}")
	return b.String()
}

// The columns that all texts make together are at most wordColumns, which is what the
// encoder makes of one, and few enough for wordCells values in all rows: half a gigabyte.
const (
	wordColumns = 4096
	wordCells   = 1 << 27
)

// encoder is that of each of a number of texts.
func (t *table) encoder(texts int) string {
	if most := min(wordColumns, wordCells/t.rows) / int64(texts); most < wordColumns {
		return fmt.Sprintf("{kind: \"text\", max: %d}", max(most, 1))
	}
	return `{kind: "text"}`
}

// smallTable is the number of rows from which on the trainer's own min_rows, 20,
// is a fortieth of them at most.
const smallTable = 800

// declaration is a column's #Column.
func (c *column) declaration() string {
	fs := []string{"type: " + quote(string(c.typ))}
	if c.nulls == 0 {
		fs = append(fs, `nulls: "never"`)
	}
	if c.typ.Numeric() && c.distinct > 0 {
		fs = append(fs, "min: "+bound(c.min, false), "max: "+bound(c.max, true))
	}
	if len(c.values) > 0 {
		fs = append(fs, "in: "+list(c.values))
	}
	if len(fs) == 1 {
		return fs[0]
	}
	return "{" + strings.Join(fs, ", ") + "}"
}

// width is how long a list's line may get.
const width = 110

// list is a list of texts, in lines where it is long.
func list(items []string) string {
	var lines []string
	line := ""
	for _, s := range items {
		if q := quote(s) + ","; line == "" {
			line = q
		} else if len(line)+1+len(q) <= width {
			line += " " + q
		} else {
			lines, line = append(lines, line), q
		}
	}
	if len(lines) == 0 {
		return "[" + strings.TrimSuffix(line, ",") + "]"
	}
	return "[\n" + strings.Join(append(lines, line), "\n") + "\n]"
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// reserved are CUE's words, present and announced, that are no plain labels.
var reserved = []string{"package", "import", "for", "in", "if", "let", "else", "try", "func", "true", "false", "null"}

// field is a name as CUE wants it before a colon.
func field(name string) string {
	if plain.MatchString(name) && !slices.Contains(reserved, name) {
		return name
	}
	return quote(name)
}

// quote is a CUE string: one of JSON is one of CUE.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}
