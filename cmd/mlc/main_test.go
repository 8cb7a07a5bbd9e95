package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"mlc.dev/mlc/cmd/mlc/internal/cli"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/servertest"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mlc": func() { os.Exit(cli.Main(os.Args[1:])) }})
}

// update rewrites golden files: MLC_UPDATE=1.
var update = os.Getenv("MLC_UPDATE") != ""

// TestScript runs the txtar scripts, each the way a user would run the binary.
func TestScript(t *testing.T) {
	lib, err := ort.Find()
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv(ort.EnvLibrary, lib.Path)
			e.Setenv("CUE_CACHE_DIR", filepath.Join(e.WorkDir, ".cue-cache"))
			e.Setenv("EXAMPLES", examples)
			e.Setenv("QUALITY", filepath.Join(examples, "..", "bench", "cmd", "quality", "specs"))
			e.Setenv("SHARED", filepath.Join(examples, "..", "..", "shared", "data"))
			e.Setenv("NO_COLOR", "1")
			e.Setenv("PYTHONPATH", os.Getenv("PYTHONPATH"))
			for name, value := range pipVariables() {
				e.Setenv(name, value)
			}
			for kind := range servertest.Kinds {
				e.Values[serverKey(kind)] = &box{}
			}
			e.Values[servedKey{}] = &served{}
			for _, name := range proxies {
				e.Values[serverKey(name)] = &proxy{}
			}
			for _, name := range []string{cliEnv, engineEnv, engineEnv + "_2"} {
				e.Setenv(name, os.Getenv(name))
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if name, ok := strings.CutPrefix(cond, "have:"); ok {
				_, err := exec.LookPath(name)
				return err == nil, nil
			}
			if cond == "pip" {
				if !pipReaches() {
					t.Log("SKIPPED in part: pip reaches no package index")
				}
				return pipReaches(), nil
			}
			if cond == "root" {
				if os.Getuid() != 0 {
					t.Log("SKIPPED in part: not root")
				}
				return os.Getuid() == 0, nil
			}
			if cond == "engine" || cond == "engines" {
				has := os.Getenv(engineEnv) != "" && (cond == "engine" || os.Getenv(engineEnv+"_2") != "")
				if !has {
					t.Logf("SKIPPED: no Dagger %s: see %s in CONTRIBUTING.md", cond, engineEnv)
				}
				return has, nil
			}
			if name, ok := strings.CutPrefix(cond, "server:"); ok {
				has := servertest.Have(name)
				if !has {
					t.Logf("SKIPPED: no %s server on this machine", name)
				}
				return has, nil
			}
			if name, ok := strings.CutPrefix(cond, "shared:"); ok {
				_, err := os.Stat(filepath.Join("../../../shared/data", name))
				if err != nil {
					t.Logf("SKIPPED in part: no ../shared/data/%s", name)
				}
				return err == nil, nil
			}
			if mod, ok := strings.CutPrefix(cond, "python:"); ok {
				err := exec.Command("python3", "-c", "import "+mod).Run()
				if err != nil {
					t.Logf("SKIPPED in part: python3 has no module %s", mod)
				}
				return err == nil, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pipeline":    pipeline,
			"runimage":    runImage,
			"server":      server,
			"proxy":       proxyEngine,
			"cut":         cut,
			"bundle":      bundle,
			"python":      pythonArchive,
			"flights":     copyFlights,
			"digest":      digest,
			"damage":      damage,
			"sed":         replace,
			"killed":      killed,
			"count":       count,
			"locked":      locked,
			"model":       modelPath,
			"serve":       serve,
			"http":        httpCall,
			"until":       until,
			"serveimage":  serveImage,
			"linkmodel":   linkModel,
			"damagemodel": damageModel,
			"mlcserve":    mlcServe,
			"atleast":     atLeast,
			"sameline":    sameLine,
			"crlf":        crlf,
			"foreign":     foreignModel,
		},
	})
}

// TestExamples compiles every example and compares its plan with the golden one;
// its CUE module names the schema that it is checked with.
func TestExamples(t *testing.T) {
	dirs, err := filepath.Glob("../../examples/*/*.cue")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	files := schema.Assemble(stdlib.Kinds().Schemas())
	for _, spec := range dirs {
		dir := filepath.Dir(spec)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
			if list.HasErrors() {
				t.Fatal(list.Err())
			}
			golden(t, filepath.Join(dir, "plan.golden"), r.System.Text()+"\n"+r.Plan.Text())
			mod, err := os.ReadFile(filepath.Join(dir, "cue.mod", "module.cue"))
			if err != nil {
				t.Fatal(err)
			}
			want := regexp.MustCompile(`v0\.1\.0-dev\.h[0-9a-f]+`).ReplaceAllString(string(mod), files.Version())
			golden(t, filepath.Join(dir, "cue.mod", "module.cue"), want)
		})
	}
}

// golden compares a text with a file, or writes it with MLC_UPDATE=1.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what it was (make update writes it):\n%s", path, diff)
	}
}

// copyFlights copies the flights example into the current folder: flights.
func copyFlights(ts *testscript.TestScript, neg bool, args []string) {
	src := filepath.Join(ts.Getenv("EXAMPLES"), "flights")
	for _, f := range []string{"flights.cue", "data/flights.csv.gz", "data/airport_days.csv.gz", "data/new_flights.csv"} {
		b, err := os.ReadFile(filepath.Join(src, f))
		ts.Check(err)
		dst := ts.MkAbs(f)
		ts.Check(os.MkdirAll(filepath.Dir(dst), 0o755))
		ts.Check(os.WriteFile(dst, b, 0o644))
	}
}

// digest prints the SHA-256 of files to a file: digest OUT FILE...
func digest(ts *testscript.TestScript, neg bool, args []string) {
	var b strings.Builder
	for _, f := range args[1:] {
		h := sha256.Sum256([]byte(ts.ReadFile(f)))
		fmt.Fprintln(&b, hex.EncodeToString(h[:]))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
}

// bundle writes the digests of the bundles that a file with JSON tells of:
// bundle OUT FILE.
func bundle(ts *testscript.TestScript, neg bool, args []string) {
	found := regexp.MustCompile(`"bundle":\s*"(sha256:[0-9a-f]{64})"`).FindAllString(ts.ReadFile(args[1]), -1)
	if len(found) == 0 {
		ts.Fatalf("%s tells of no bundle", args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(found, "\n")+"\n"), 0o644))
}

// damage deletes or alters the largest artifact: damage delete|alter.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	var largest string
	var size int64
	ts.Check(filepath.WalkDir(ts.MkAbs(".mlc/artifacts"), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			largest, size = p, info.Size()
		}
		return err
	}))
	if args[0] == "delete" {
		ts.Check(os.Remove(largest))
		return
	}
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 0xff
	ts.Check(os.Chmod(largest, 0o644))
	ts.Check(os.WriteFile(largest, b, 0o644))
}

// replace replaces the only occurrence of a text: sed FILE OLD NEW.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	src := ts.ReadFile(args[0])
	if strings.Count(src, args[1]) != 1 {
		ts.Fatalf("%q occurs %d times in %s", args[1], strings.Count(src, args[1]), args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(src, args[1], args[2], 1)), 0o644))
}

// killed starts mlc apply and, as soon as the step named by the argument has begun,
// kills it, or ends it as Ctrl-C or SIGTERM does: killed STEP [interrupt|terminate].
func killed(ts *testscript.TestScript, neg bool, args []string) {
	cmd := exec.Command("mlc", "--json", "apply")
	exe, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "mlc"))
	ts.Check(err)
	cmd.Path, cmd.Dir = exe, ts.MkAbs(".")
	cmd.Env = append(os.Environ(), ort.EnvLibrary+"="+ts.Getenv(ort.EnvLibrary), "HOME="+ts.Getenv("HOME"))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	buf, seen := make([]byte, 64<<10), ""
	for !strings.Contains(seen, `"kind":"started","step":"`+args[0]+`"`) {
		n, err := out.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			ts.Fatalf("apply ended before %s began:\n%s", args[0], seen)
		}
	}
	if len(args) == 1 {
		ts.Check(cmd.Process.Signal(syscall.SIGKILL))
		_ = cmd.Wait() // killed, as it should be
		return
	}
	by, want := os.Interrupt, 130
	if args[1] == "terminate" {
		by, want = syscall.SIGTERM, 143
	}
	ts.Check(cmd.Process.Signal(by))
	rest, err := io.ReadAll(out)
	ts.Check(err)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != want || !strings.Contains(string(rest), "MLC4004") {
		ts.Fatalf("exit status %d after it was told to end:\n%s", code, rest)
	}
}

// count demands how often a text occurs in a file: count FILE N TEXT.
func count(ts *testscript.TestScript, neg bool, args []string) {
	if got := fmt.Sprint(strings.Count(ts.ReadFile(args[0]), args[2])); got != args[1] {
		ts.Fatalf("%q occurs %s times in %s, not %s:\n%s", args[2], got, args[0], args[1], ts.ReadFile(args[0]))
	}
}

// atLeast demands a metric of the test rows in a bundle's metrics.json:
// atleast FILE METRIC MIN.
func atLeast(ts *testscript.TestScript, neg bool, args []string) {
	var m struct {
		Model struct {
			Metrics map[string]map[string]float64
		}
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &m))
	bar, err := strconv.ParseFloat(args[2], 64)
	ts.Check(err)
	if got := m.Model.Metrics["test"][args[1]]; !(got >= bar) {
		ts.Fatalf("%s is %v, not %v", args[1], got, bar)
	}
}

// sameLine demands that the first lines with a text are the same in two files:
// sameline FILE FILE TEXT.
func sameLine(ts *testscript.TestScript, neg bool, args []string) {
	var got [2]string
	for i := range got {
		for _, l := range strings.Split(ts.ReadFile(args[i]), "\n") {
			if strings.Contains(l, args[2]) {
				got[i] = l
				break
			}
		}
	}
	if got[0] == "" || got[0] != got[1] {
		ts.Fatalf("%q and %q", got[0], got[1])
	}
}

// crlf turns line ends into Windows' in a file, in all lines or in the first n:
// crlf FILE [N].
func crlf(ts *testscript.TestScript, neg bool, args []string) {
	n := -1
	if len(args) > 1 {
		var err error
		n, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(ts.ReadFile(args[0]), "\n", "\r\n", n)), 0o644))
}

// modelPath writes where the store keeps the one packaged model.onnx that it holds
// to a file: model OUT.
func modelPath(ts *testscript.TestScript, neg bool, args []string) {
	var found string
	ts.Check(filepath.WalkDir(ts.MkAbs(".mlc/artifacts"), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if strings.Contains(string(b), "mlc.problem") && strings.HasPrefix(string(b), "\x08") {
			found = p
		}
		return err
	}))
	if found == "" {
		ts.Fatalf("no packaged model in the store")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(found), 0o644))
}

// locked holds the lock of the current folder's state as another apply would, or
// frees it: locked hold|free.
func locked(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(".mlc/state.db.lock")
	if args[0] == "free" {
		held[path].Close()
		return
	}
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	ts.Check(err)
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	held[path] = f
}

// held are the locks of locked, by path; one script uses it.
var held = map[string]*os.File{}
