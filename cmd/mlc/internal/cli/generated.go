package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
)

// generatedFile is in each folder that mlc generate has written to.
const generatedFile = ".mlc-generated.json"

// generated is what mlc wrote to a folder: the digests of files, by their
// slash-separated path, by the service that they are of. A file that still has its
// digest is mlc's to write anew or to remove; any other is somebody's.
type generated struct {
	Format   string                            `json:"format"`
	Services map[string]map[string]plan.Digest `json:"services"`
}

func readGenerated(dir string) (generated, error) {
	const format = "mlc.generated.v1"
	g := generated{Format: format, Services: map[string]map[string]plan.Digest{}}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return g, misuse("%s is no folder", dir)
	}
	path := filepath.Join(dir, generatedFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if g.Services == nil {
		g.Services = map[string]map[string]plan.Digest{}
	}
	if err == nil && g.Format != format {
		err = fmt.Errorf("its format is %q, not %q", g.Format, format)
	}
	for _, files := range g.Services {
		for name := range files {
			if err == nil && !filepath.IsLocal(filepath.FromSlash(name)) {
				err = fmt.Errorf("%q is no path below the folder", name)
			}
		}
	}
	if err != nil {
		return g, diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("%s cannot be read: %v", path, err), Why: "it tells which files mlc wrote, and may write anew",
			Mend: "restore it, or remove it and give --force"}
	}
	return g, nil
}

// replace writes a service's files below a folder, each whole or not at all, and
// removes those that mlc wrote for it before, that owned holds for, and that are not
// among them any more. Without force, a file in the way that somebody has changed or
// made stops it before anything is done.
func replace(ctx context.Context, dir, service string, files map[string][]byte, owned func(name string) bool, force bool) (removed []string, err error) {
	g, err := readGenerated(dir)
	if err != nil {
		return nil, err
	}
	removed = []string{}
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	before := g.Services[service]
	if before == nil {
		before = map[string]plan.Digest{}
		g.Services[service] = before
	}
	names := slices.Collect(maps.Keys(files))
	for name := range before {
		if _, still := files[name]; !still && owned(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var changed []string
	for _, name := range names {
		if err := inside(dir, name); err != nil {
			return nil, err
		}
		have, err := os.ReadFile(at(name))
		want, still := files[name]
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, diag.Unwritable(dir, err)
		case plan.DigestOf(have) != before[name] && !(still && bytes.Equal(have, want)):
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 && !force {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("%s holds files that are not as mlc wrote them for service %s: %s", dir, service, strings.Join(changed, ", ")),
			Why: "somebody has changed them", Mend: "give --force to replace them"}
	}
	defer func() { // also of what was done before an error
		b, merr := json.MarshalIndent(g, "", "  ")
		err = errors.Join(err, merr, writeFile(filepath.Join(dir, generatedFile), append(b, '\n')))
	}()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if b, still := files[name]; still {
			if err := writeFile(at(name), b); err != nil {
				return removed, err
			}
			for _, digests := range g.Services {
				delete(digests, name) // a file is of one service
			}
			before[name] = plan.DigestOf(b)
			continue
		}
		err := os.Remove(at(name))
		switch {
		case err == nil:
			removed = append(removed, name)
			removeEmpty(filepath.Dir(at(name)), filepath.Clean(dir))
		case !errors.Is(err, fs.ErrNotExist):
			return removed, diag.Unwritable(at(name), err)
		}
		delete(before, name)
	}
	return removed, nil
}

// inside fails where a file would not be below the folder, by a link on the way to it.
func inside(dir, name string) error {
	for at := filepath.Dir(filepath.FromSlash(name)); at != "."; at = filepath.Dir(at) {
		path := filepath.Join(dir, at)
		if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: path + " is a link", Why: "what is generated stays in the folder that is named", Mend: "make it a folder, or generate to where it leads"}
		}
	}
	return nil
}

// removeEmpty removes a folder that holds nothing, and those above it below a root.
func removeEmpty(dir, root string) {
	for dir != root && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}
