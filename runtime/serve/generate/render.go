package generate

import (
	"bytes"
	"embed"
	"encoding/json"
	"go/format"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"unicode"
)

//go:embed all:templates
var templates embed.FS

// folder makes a target of the templates in a folder of its name. PACKAGE and
// GOPACKAGE in a path stand for the clients' package. Templates have [[ ]] as delimiters.
func folder(name string) func(*view) (map[string][]byte, error) {
	return func(v *view) (map[string][]byte, error) {
		out := map[string][]byte{}
		root, named := path.Join("templates", name), strings.NewReplacer("GOPACKAGE", v.GoPackage(), "PACKAGE", v.Package)
		err := fs.WalkDir(templates, root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := render(p, v)
			if err != nil {
				return err
			}
			out[named.Replace(strings.TrimSuffix(strings.TrimPrefix(p, "templates/"), ".tmpl"))] = b
			return nil
		})
		return out, err
	}
}

// render executes the template at a path, and formats it when it is Go.
func render(p string, data any) ([]byte, error) {
	t := template.New("").Delims("[[", "]]").Option("missingkey=error")
	t.Funcs(template.FuncMap{
		"quote":  quote,
		"pquote": pquote,
		"indent": indent,
		"doc":    doc,
		"shell":  shell,
		"dns":    func(s string) string { return dns(s, 63) },
		"dict":   dict,
		"include": func(name string, data any) (string, error) {
			var b strings.Builder
			err := t.ExecuteTemplate(&b, name, data)
			return strings.TrimRight(b.String(), "\n"), err
		},
	})
	if _, err := t.ParseFS(templates, "templates/*.tmpl", p); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, path.Base(p), data); err != nil {
		return nil, err
	}
	if strings.HasSuffix(strings.TrimSuffix(p, ".tmpl"), ".go") {
		return format.Source(b.Bytes())
	}
	return b.Bytes(), nil
}

// dict makes what a template hands to another of names and values.
func dict(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[pairs[i].(string)] = pairs[i+1]
	}
	return out
}

// quote writes a string as JSON, which is YAML, TypeScript, Python and a Dockerfile's
// exec form too.
func quote(s string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// pquote writes a string in protobuf's text format.
func pquote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			b.WriteString(string([]byte{'\\', '0' + c>>6, '0' + c>>3&7, '0' + c&7}))
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// indent puts n spaces before every line but the first.
func indent(n int, s string) string {
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", n))
}

// doc makes a text fit for a line of a comment in any of the languages.
func doc(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	return strings.ReplaceAll(s, "*/", "* /")
}
