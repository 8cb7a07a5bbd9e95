package python

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/container"
)

// environments is the folder of all environments in one of user caches.
func environments(cache string) string { return filepath.Join(cache, "mlc", "python") }

// packagesFile is what is in an environment, and by its time when it was last used.
const packagesFile = "packages.json"

// Environments are those under a folder.
type Environments struct{ root string }

// Cached are the environments in the user's cache; none where there can be no cache.
func Cached() Environments {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Environments{}
	}
	return Environments{environments(cache)}
}

// half ends the name of an environment that is being made or removed.
const half = ".new"

// Unused returns the folders of the environments that no step has used since a time.
func (e Environments) Unused(since time.Time) ([]string, error) {
	list, err := os.ReadDir(e.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, d := range list {
		if dir := filepath.Join(e.root, d.Name()); d.IsDir() && !used(dir, since) {
			out = append(out, dir)
		}
	}
	return out, err
}

// used reports whether an environment was used since a time, or is gone.
func used(dir string, since time.Time) bool {
	info, err := os.Stat(filepath.Join(dir, packagesFile))
	if err != nil { // half of one
		info, err = os.Stat(dir)
	}
	return err != nil || info.ModTime().After(since)
}

// Remove removes the environment in a folder, unless a step has used it since a time or
// is at it.
func (e Environments) Remove(dir string, since time.Time) error {
	whole := strings.TrimSuffix(dir, half)
	f, err := os.OpenFile(whole+lockEnd, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() // the file stays: who waits for it has it open
	if ok, err := hold(f); !ok || used(dir, since) {
		return err
	}
	// What is cut off is not taken for an environment.
	if dir == whole {
		if err := errors.Join(os.RemoveAll(whole+half), os.Rename(whole, whole+half)); err != nil {
			return err
		}
	}
	return os.RemoveAll(whole + half)
}

// made is an environment: a venv.
type made struct {
	dir, program string
	version      string   // of Python
	packages     []string // name==version, in order
}

// interpreter is what probe tells of one.
type interpreter struct {
	Program string `json:"program"`
	Version string `json:"version"`
	// Identity is all that an environment depends on.
	Identity []string `json:"identity"`
}

// probe tells of the interpreter that runs it.
//
//go:embed probe.py
var probe string

// listed tells what is installed, a name==version a line.
const listed = `import importlib.metadata as m
for d in m.distributions(): print(d.metadata["Name"] + "==" + d.version)`

// environment is the one that a program makes of a file of requirements ("": none),
// under a folder: the one that there is, or a new one.
func environment(ctx context.Context, w kind.Work, root, program, requirements string) (made, error) {
	var none made
	var text []byte
	var err error
	if requirements != "" {
		if text, err = os.ReadFile(requirements); err != nil {
			return none, err
		}
	}
	names, faults := pins(string(text))
	if len(faults) > 0 {
		return none, faults
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return none, kind.Faults{{Field: pythonField, Code: diag.CommandFailed, What: fmt.Sprintf("there is no program %q where the script is to run", program), Why: "nothing could run", Mend: "install it there, name another, or say by image or archive in which container it is"}}
	}
	// A setup needs what memory it needs, and is not the script.
	w.Memory = 0
	var py interpreter
	out, err := lines(ctx, w, container.Program{Args: []string{path, "-I", "-c", probe}, Env: base(), Name: program, Field: pythonField})
	if err != nil {
		return none, err
	}
	// What wraps an interpreter may have said something before.
	if err := json.Unmarshal([]byte(strings.Join(out[max(len(out)-1, 0):], "")), &py); err != nil {
		return none, kind.Faults{{Field: pythonField, Code: diag.CommandFailed, What: fmt.Sprintf("%s is no Python", program), Why: "it does not run a line of Python", Mend: "name a Python of version 3.8 or later"}}
	}
	h := sha256.New()
	for _, part := range append(py.Identity, string(text)) {
		fmt.Fprintf(h, "%d %s\n", len(part), part)
	}
	m := made{dir: filepath.Join(root, hex.EncodeToString(h.Sum(nil))[:32]), version: py.Version}
	m.program = filepath.Join(m.dir, "bin", "python")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return none, err
	}
	free, err := lock(ctx, m.dir+lockEnd, func() { w.Log("waiting for another step, which makes the same environment") })
	if err != nil {
		return none, err
	}
	defer free()
	record := filepath.Join(m.dir, packagesFile)
	b, err := os.ReadFile(record)
	if _, serr := os.Stat(m.program); err == nil && serr == nil { // it leads to the interpreter, which may be gone
		now := time.Now()
		return m, errors.Join(json.Unmarshal(b, &m.packages), os.Chtimes(record, now, now))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return none, err
	}
	fresh := m.dir + half
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(m.dir)); err != nil {
		return none, err
	}
	defer os.RemoveAll(fresh)
	if m.packages, err = install(ctx, w, py.Program, fresh, requirements, names); err != nil {
		return none, err
	}
	if b, err = json.Marshal(m.packages); err != nil {
		return none, err
	}
	if err := os.WriteFile(filepath.Join(fresh, filepath.Base(record)), b, 0o644); err != nil {
		return none, err
	}
	return m, os.Rename(fresh, m.dir)
}

// install makes a venv in a folder, with the requirements and nothing that they do
// not pin, and returns what is in it.
func install(ctx context.Context, w kind.Work, program, dir, requirements string, names map[string]bool) ([]string, error) {
	venv := []string{program, "-I", "-m", "venv"}
	if requirements == "" {
		venv = append(venv, "--without-pip")
	}
	if err := (container.Program{Args: append(venv, dir), Env: base(), Name: "making an environment", Field: pythonField}).Run(ctx, w); err != nil {
		var faults kind.Faults
		if errors.As(err, &faults) {
			faults[0].Mend = "give it its venv, which some systems have in a package such as python3-venv, or name an image or archive that has it"
		}
		return nil, err
	}
	if requirements == "" {
		return []string{}, nil
	}
	python := filepath.Join(dir, "bin", "python")
	list := container.Program{Args: []string{python, "-I", "-c", listed}, Env: base(), Name: "listing the packages", Field: requirementsField}
	before, err := lines(ctx, w, list)
	if err != nil {
		return nil, err
	}
	pip := container.Program{Args: []string{python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "-r", requirements},
		Env: append(base(), outward()...), Name: "pip", Field: requirementsField}
	if err := pip.Run(ctx, w); err != nil {
		return nil, unreached(err)
	}
	after, err := lines(ctx, w, list)
	if err != nil {
		return nil, err
	}
	packages, open := []string{}, []string{}
	for _, p := range after {
		name, _, _ := strings.Cut(p, "==")
		switch {
		case names[normal(name)]:
			packages = append(packages, p)
		case !slices.Contains(before, p):
			open = append(open, p)
		}
	}
	slices.Sort(packages)
	slices.Sort(open)
	if len(open) > 0 {
		return nil, kind.Faults{{Field: requirementsField, Code: diag.BadArgs, What: "the requirements need packages that they do not pin: " + strings.Join(open, ", "),
			Why: "the same step would give another model another day", Mend: "add them to the file as they stand here, a line each"}}
	}
	return packages, nil
}

// unreached tells pip's failure to get at any index as what it is.
func unreached(err error) error {
	var faults kind.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for i, f := range faults {
		for _, sign := range []string{"connection broken by", "Failed to establish a new connection", "Max retries exceeded", "(from versions: none)"} {
			if strings.Contains(f.Why, sign) {
				faults[i].What = "pip finds no package: it reaches no index, or the index has none of that name"
				faults[i].Mend = "open the way to an index, name one by PIP_INDEX_URL, or mend the names"
			}
		}
	}
	return faults
}

// base are the variables that every part of the setup gets.
func base() []string { return inherited("PATH", "HOME", "LANG", "TMPDIR") }

// outward are the variables that say how pip gets at its index.
func outward() []string {
	var out []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name = strings.ToUpper(name); {
		case strings.HasPrefix(name, "PIP_"), strings.HasSuffix(name, "_PROXY"), slices.Contains([]string{"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}, name):
			out = append(out, v)
		}
	}
	return out
}

// lines runs a program whose lines are for us.
func lines(ctx context.Context, w kind.Work, p container.Program) ([]string, error) {
	var out []string
	w.Log = func(l string) { out = append(out, l) }
	err := p.Run(ctx, w)
	return out, err
}

// again is how often a lock that another holds is tried.
const again = 100 * time.Millisecond

// lockEnd ends the name of an environment's lock.
const lockEnd = ".lock"

// hold takes a file's lock where nobody else has it.
func hold(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}

// lock holds a file's lock until free. waits is called where it is not to be had at
// once.
func lock(ctx context.Context, path string, waits func()) (free func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		ok, err := hold(f)
		if ok {
			return func() { f.Close() }, nil
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if first && waits != nil {
			waits()
		}
		tick := time.NewTimer(again)
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}
