package python

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/container"
)

// TestPins: each way to pin a package is taken, by its name as pip compares it.
func TestPins(t *testing.T) {
	const sha = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for text, want := range map[string][]string{
		"":             nil,
		"# none\n\n":   nil,
		"numpy==2.4.6": {"numpy"},
		"Scikit_Learn == 1.9.1  # pinned\r\nml.dtypes===0.6.0":                           {"ml-dtypes", "scikit-learn"},
		"uvicorn[standard]==0.30.1":                                                      {"uvicorn"},
		`tomli==2.0.1 ; python_version < "3.11"`:                                         {"tomli"},
		"torch==2.4.0+cpu":                                                               {"torch"},
		"numpy==2.4.6 \\\n    --hash=" + sha + " \\\n    --hash=" + sha:                  {"numpy"},
		"numpy --hash=" + sha:                                                            {"numpy"},
		"own @ https://example.com/own-1-py3-none-any.whl --hash=" + sha:                 {"own"},
		"--index-url https://example.com/simple\n--only-binary :all:\n-i x\na==1\n--pre": {"a"},
	} {
		names, faults := pins(text)
		if got := slices.Sorted(maps.Keys(names)); len(faults) > 0 || !slices.Equal(got, want) {
			t.Errorf("%q: %v, not %v; %v", text, got, want, faults)
		}
	}
}

// TestOpenPins: each line that leaves open what it installs is told, by its number.
func TestOpenPins(t *testing.T) {
	for _, line := range []string{"numpy", "numpy>=2", "numpy~=2.4", "numpy==2.*", "numpy==2.4.6,<3", "numpy!=2", "-r more.txt", "-c more.txt", "-e .", "./here", "/there/own.whl",
		"--find-links here", "own @ https://example.com/own.whl", "git+https://example.com/own", "numpy==", "==1", "numpy==1 numpy==2", "numpy --hash=md5:00"} {
		_, faults := pins("a==1\n# \\\nb==2\n" + line + "\n")
		if len(faults) != 1 || faults[0].Code != diag.BadArgs || faults[0].Field != requirementsField || !strings.HasPrefix(faults[0].What, "line 4 of the requirements pins nothing: "+line) && line != "" {
			t.Errorf("%q: %+v", line, faults)
		}
	}
}

// TestPinsOfFreeze: what pip freeze writes is taken whole, wherever comments, blank
// lines and line ends are.
func TestPinsOfFreeze(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z]([a-z0-9]|-[a-z0-9])*`), rapid.ID).Draw(t, "names")
		text := ""
		for _, n := range names {
			text += rapid.SampledFrom([]string{"", "\n", "# x==\n", "  "}).Draw(t, "before")
			text += n + "==" + rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,3}){0,3}(rc1|\.post1|\.dev3)?`).Draw(t, "version") + rapid.SampledFrom([]string{"\n", "\r\n", "  # why\n"}).Draw(t, "after")
		}
		got, faults := pins(text)
		if len(faults) > 0 || !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(slices.Values(names))) {
			t.Fatalf("%q: %v %v", text, got, faults)
		}
	})
}

// FuzzPins: no text makes a panic, and what has a fault has its line.
func FuzzPins(f *testing.F) {
	f.Add("numpy==1\n-r x \\\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, faults := pins(text); len(faults) > 0 && faults[0].What == "" {
			t.Error("a fault without words")
		}
	})
}

func needPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: no python3 on this machine")
	}
}

func work(t *testing.T) kind.Work {
	return kind.Work{Dir: t.TempDir(), Log: func(l string) { t.Log(l) }}
}

// TestEnvironment: many at once make one environment, a later one takes it, what is
// broken is made again, and other requirements are another's.
func TestEnvironment(t *testing.T) {
	needPython(t)
	root, w := t.TempDir(), work(t)
	var all [4]made
	var wg sync.WaitGroup
	for i := range all {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if all[i], err = environment(t.Context(), w, root, "python3", ""); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	for _, m := range all {
		if m.dir != all[0].dir || m.version != all[0].version || len(m.packages) != 0 {
			t.Fatalf("%+v and %+v", m, all[0])
		}
	}
	folders := func() (out []string) {
		es, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if e.IsDir() {
				out = append(out, e.Name())
			}
		}
		return out
	}
	if got := folders(); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	mark := filepath.Join(all[0].dir, "mark")
	write(t, mark, "")
	if _, err := environment(t.Context(), w, root, "python3", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("a finished environment is made again: %v", err)
	}
	// Half of one, as a killed stage leaves it, and one whose interpreter is gone.
	if err := os.Remove(filepath.Join(all[0].dir, "bin", "python")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(all[0].dir+".new", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := environment(t.Context(), w, root, "python3", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a broken environment is taken")
	}
	if got := folders(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestEnvironmentUse: to take an environment is to use it.
func TestEnvironmentUse(t *testing.T) {
	needPython(t)
	root, w := t.TempDir(), work(t)
	m, err := environment(t.Context(), w, root, "python3", "")
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(m.dir, packagesFile), then, then); err != nil {
		t.Fatal(err)
	}
	e := Environments{root}
	if got, err := e.Unused(then); err != nil || !slices.Equal(got, []string{m.dir}) {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := environment(t.Context(), w, root, "python3", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Unused(then); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestUnused: what is removed is old, whole or half, and what a step is at or took
// meanwhile stays.
func TestUnused(t *testing.T) {
	e := Environments{t.TempDir()}
	since := time.Now().Add(-time.Hour)
	path := func(name string) string { return filepath.Join(e.root, name) }
	for name, at := range map[string]time.Time{"old": since, "held": since, "young": time.Now(), "taken": since} {
		if err := os.MkdirAll(path(name), 0o755); err != nil {
			t.Fatal(err)
		}
		record := filepath.Join(path(name), packagesFile)
		write(t, record, "[]")
		if err := os.Chtimes(record, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(path("cut"+half), 0o755), os.Chtimes(path("cut"+half), since, since)); err != nil {
		t.Fatal(err)
	}
	list, err := e.Unused(since)
	if err != nil || !slices.Equal(list, []string{path("cut" + half), path("held"), path("old"), path("taken")}) {
		t.Fatalf("%v, %v", list, err)
	}
	free, err := lock(t.Context(), path("held"+lockEnd), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	if now := time.Now(); os.Chtimes(filepath.Join(path("taken"), packagesFile), now, now) != nil {
		t.Fatal("no times here")
	}
	for _, dir := range list {
		if err := e.Remove(dir, since); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(path("*"))
	left = slices.DeleteFunc(left, func(p string) bool { return strings.HasSuffix(p, lockEnd) })
	if err != nil || !slices.Equal(left, []string{path("held"), path("taken"), path("young")}) {
		t.Errorf("%v, %v", left, err)
	}
	if list, err := (Environments{path("nowhere")}).Unused(since); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestEnvironmentWaits: one that another makes is waited for, until the context is done.
func TestEnvironmentWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	free, err := lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, path, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	free()
	if free, err = lock(t.Context(), path, func() { t.Error("a free lock is waited for") }); err != nil {
		t.Fatal(err)
	}
	free()
}

// TestIsolated: a script sees its own environment and what the contract gives it, the
// same in each run.
func TestIsolated(t *testing.T) {
	needPython(t)
	t.Setenv("PYTHONPATH", t.TempDir())
	t.Setenv("PYTHONSTARTUP", "/nowhere")
	t.Setenv("SECRET", "s3cr3t")
	root, w := t.TempDir(), work(t)
	m, err := environment(t.Context(), w, root, "python3", "")
	if err != nil {
		t.Fatal(err)
	}
	beside := t.TempDir()
	write(t, filepath.Join(beside, "neighbour.py"), "")
	script := filepath.Join(beside, "train.py")
	write(t, script, `import os, sys, tempfile, threading
assert "SECRET" not in os.environ and "PYTHONPATH" not in os.environ
assert sys.prefix == `+fmt.Sprintf("%q", m.dir)+`, sys.prefix
assert not any("site-packages" in p and not p.startswith(sys.prefix) for p in sys.path), sys.path
try: import neighbour
except ImportError: pass
else: raise AssertionError("a neighbour")
assert tempfile.gettempdir() == os.path.join(os.getcwd(), "tmp")
print(hash("mlc"), os.environ["OMP_NUM_THREADS"])
`)
	var runs [2][]string
	for i := range runs {
		dir := filepath.Join(t.TempDir(), "script")
		at, err := place(dir, script)
		if err != nil {
			t.Fatal(err)
		}
		runs[i], err = lines(t.Context(), w, container.Program{Args: []string{m.program, "-s", at}, Dir: dir, Env: variables(m.dir, filepath.Join(dir, "tmp"), 3), Name: "the script", Field: scriptField})
		if err != nil {
			t.Fatal(shortened(err, dir))
		}
	}
	if !slices.Equal(runs[0], runs[1]) || !strings.HasSuffix(runs[0][0], " 3") {
		t.Errorf("%v and %v", runs[0], runs[1])
	}
}

// TestUnreached: what pip says where it reaches no index is told as that, and other
// failures as they are.
func TestUnreached(t *testing.T) {
	for why, want := range map[string]bool{
		"its last lines: ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none) ⏎ ERROR: No matching distribution found for a==1": true,
		"its last lines: WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'":                                                         true,
		"its last lines: ERROR: Could not find a version that satisfies the requirement a==1 (from versions: 2, 3)":                                                  false,
		"its last lines: error: subprocess-exited-with-error":                                                                                                        false,
	} {
		var faults kind.Faults
		if err := unreached(kind.Faults{{What: "pip ended with exit status 1", Why: why}}); !errors.As(err, &faults) || strings.Contains(faults[0].What, "index") != want || faults[0].Why != why {
			t.Errorf("%q: %v", why, err)
		}
	}
}

// TestCommand: it is in a container exactly where the spec names one.
func TestCommand(t *testing.T) {
	c := Trainer{}.Command([]byte(`{"script":"a.py"}`))
	if !c.InPlace || c.Image != "" || c.Archive != "" {
		t.Errorf("%+v", c)
	}
	if c = (Trainer{}).Command([]byte(`{"image":"i:1"}`)); c.Image != "i:1" || c.Caches[volume] != "/var/cache/mlc/mlc/python" {
		t.Errorf("%+v", c)
	}
	if got := (Trainer{}).Files([]byte(`{"script":"a.py"}`)); !maps.Equal(got, map[string]string{"script": "a.py"}) {
		t.Errorf("%v", got)
	}
	if got := (Trainer{}).Files([]byte(`{"script":"a.py","requirements":"r.txt"}`)); !maps.Equal(got, map[string]string{"script": "a.py", "requirements": "r.txt"}) {
		t.Errorf("%v", got)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
