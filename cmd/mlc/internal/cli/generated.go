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
	before, after := g.Services[service], map[string]plan.Digest{}
	want := maps.Clone(files) // nil: to be removed
	for name, digest := range before {
		if _, still := files[name]; still {
			continue
		}
		if owned(name) {
			want[name] = nil
		} else {
			after[name] = digest
		}
	}
	names := slices.Sorted(maps.Keys(want))
	var changed []string
	for _, name := range names {
		have, err := os.ReadFile(at(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, diag.Unwritable(dir, err)
		case plan.DigestOf(have) != before[name] && (want[name] == nil || !bytes.Equal(have, want[name])):
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 && !force {
		return nil, fmt.Errorf("%s holds files that are not as mlc wrote them for service %s: %s; give --force to replace them", dir, service, strings.Join(changed, ", "))
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if b := want[name]; b != nil {
			if err := writeFile(at(name), b); err != nil {
				return removed, err
			}
			for _, digests := range g.Services {
				delete(digests, name) // a file is of one service
			}
			after[name] = plan.DigestOf(b)
			continue
		}
		err := os.Remove(at(name))
		if err == nil {
			removed = append(removed, name)
			removeEmpty(filepath.Dir(at(name)), filepath.Clean(dir))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return removed, diag.Unwritable(at(name), err)
		}
	}
	g.Services[service] = after
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return removed, err
	}
	return removed, writeFile(filepath.Join(dir, generatedFile), append(b, '\n'))
}

// removeEmpty removes a folder that holds nothing, and those above it below a root.
func removeEmpty(dir, root string) {
	for dir != root && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}
