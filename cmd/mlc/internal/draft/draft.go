// Package draft infers a spec from a table: what its columns are, what can be
// predicted from which of them, and how that is judged. A draft says what the
// data is, and its author what is right.
package draft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/spec"
)

// Ask is what a draft is made of.
type Ask struct {
	Name  string // the system's
	Dir   string // the folder that the spec will be in
	Path  string // a file or a pattern, as a source's path but from the current folder
	Label string // the column to predict; "": the last one
}

// Draft returns the text of a spec, in the standard form. It reads every row, with
// the source that will read them again, so that what it says of a column holds.
// A user's mistake is a diag.ListError without places.
func Draft(ctx context.Context, a Ask) ([]byte, error) {
	text, err := draft(ctx, a)
	var faults kind.Faults
	if errors.As(err, &faults) {
		var list diag.List
		for _, f := range faults {
			list.Add(diag.Range{}, f.Code, "%s", f.What).Because(f.Why, f.Mend)
		}
		err = list.Err()
	}
	return text, err
}

func draft(ctx context.Context, a Ask) ([]byte, error) {
	dir, err := os.MkdirTemp("", "mlc-draft-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	t, err := read(ctx, dir, a.Path)
	if err != nil {
		return nil, err
	}
	defer t.db.Close()
	label, err := t.label(a.Label)
	if err != nil {
		return nil, err
	}
	if err := t.types(ctx, label); err != nil {
		return nil, err
	}
	if err := t.profile(ctx, label); err != nil {
		return nil, err
	}
	p, err := t.problem(ctx, label)
	if err != nil {
		return nil, err
	}
	p.guessed = a.Label == ""
	if err := t.roles(ctx, p); err != nil {
		return nil, err
	}
	if err := t.split(ctx, p); err != nil {
		return nil, err
	}
	path, err := from(a.Dir, a.Path)
	if err != nil {
		return nil, err
	}
	text, list := spec.Format(a.Name+".cue", []byte(t.text(a.Name, path, p)))
	return text, list.Err()
}

// from is a path as a spec in dir writes it. An absolute one stays.
func from(dir, path string) (string, error) {
	if !filepath.IsAbs(path) {
		absDir, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		absPath, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		if path, err = filepath.Rel(absDir, absPath); err != nil {
			return "", err
		}
	}
	return filepath.ToSlash(path), nil
}

// label finds the column to predict.
func (t *table) label(name string) (*column, error) {
	if name == "" {
		return t.cols[len(t.cols)-1], nil
	}
	names := make([]string, len(t.cols))
	for i, c := range t.cols {
		if c.name == name {
			return c, nil
		}
		names[i] = c.name
	}
	for _, l := range t.left {
		if l.name == name {
			return nil, fault(diag.BadArgs, fmt.Sprintf("the label %q %s", name, l.why), "a spec cannot declare it", "rename the column in the data")
		}
	}
	return nil, fault(diag.NoColumn, fmt.Sprintf("%s has no column %q%s", t.path, name, diag.Suggest(name, names)), "it has "+strings.Join(names, ", "), "mend --label")
}

// fault is a mistake of the user's.
func fault(code diag.Code, what, why, mend string) error {
	return kind.Faults{{Code: code, What: what, Why: why, Mend: mend}}
}

var notIdent = regexp.MustCompile(`[^A-Za-z0-9]+`)

// Ident makes a name that specs allow of any text: lower case, with prefix where
// it would begin with a digit or be empty.
func Ident(text, prefix string) string {
	name := strings.Trim(notIdent.ReplaceAllString(text, "_"), "_")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = prefix + name
	}
	return strings.ToLower(name)
}
