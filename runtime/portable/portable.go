// Package portable finds what the mlc program of this machine needs to run where
// nothing else is: its own file, the libraries that it is linked with, the
// loader, and ONNX Runtime. With them it runs in any container of the same
// processor, whatever is in there, and computes the same bits.
package portable

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/runtime/ort"
)

// File is a file of this machine and its name, slash-separated, in the folder
// that a container sees.
type File struct{ Name, Path string }

// Program is mlc, or another program of ours, as files.
type Program struct {
	// Files are in the order of their names.
	Files []File
	// command is the program within the folder, with what loads it.
	command []string
	library string // ONNX Runtime within the folder; "": none
}

// Find gathers the program at exe, as bin/ and its own name, and, unless it is
// empty, the ONNX Runtime library at library. The error is a diag.Diagnostic where this machine's
// program cannot run in a Linux container.
func Find(exe, library string) (*Program, error) {
	if runtime.GOOS != "linux" {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.EngineFailed, What: "this mlc is built for " + runtime.GOOS + ", and containers run Linux",
			Why: "steps run in containers with the very mlc that plans them", Mend: "run mlc on Linux, for example in CI or in a virtual machine"}
	}
	name := "bin/" + filepath.Base(exe)
	exe, err := filepath.EvalSymlinks(exe)
	if err != nil {
		return nil, err
	}
	p := &Program{Files: []File{{name, exe}}, command: []string{name}}
	var others []string
	if library != "" {
		others = append(others, library)
	}
	loader, libs, err := Libraries(exe, others...)
	if err != nil {
		return nil, err
	}
	if loader != "" {
		p.command = []string{"lib/" + filepath.Base(loader), "--library-path", "lib", name}
		libs[filepath.Base(loader)] = loader
	}
	if library != "" {
		if loader == "" {
			return nil, errors.New("this mlc is linked statically, which cannot load ONNX Runtime")
		}
		p.library = "lib/" + filepath.Base(library)
		libs[filepath.Base(library)] = library
	}
	for name, path := range libs {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, File{"lib/" + name, real})
	}
	sort.Slice(p.Files, func(i, j int) bool { return p.Files[i].Name < p.Files[j].Name })
	return p, nil
}

// Command is the program's command line where its folder is at dir.
func (p *Program) Command(dir string) []string {
	out := make([]string, len(p.command))
	for i, w := range p.command {
		if out[i] = w; !strings.HasPrefix(w, "-") {
			out[i] = dir + "/" + w
		}
	}
	return out
}

// Env are the variables that the program needs where its folder is at dir.
func (p *Program) Env(dir string) map[string]string {
	if p.library == "" {
		return nil
	}
	return map[string]string{ort.EnvLibrary: dir + "/" + p.library}
}

// Libraries returns the loader of the program exe, and the libraries that it and
// other files need, by the names that the loader asks for.
func Libraries(exe string, others ...string) (loader string, libs map[string]string, err error) {
	if loader, err = interpreter(exe); err != nil || loader == "" {
		return loader, nil, err
	}
	libs = map[string]string{}
	for _, f := range append([]string{exe}, others...) {
		if err := linked(loader, f, libs); err != nil {
			return "", nil, err
		}
	}
	return loader, libs, nil
}

// interpreter is the loader that a program asks for, or "" for a static one.
func interpreter(exe string) (string, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return "", fmt.Errorf("%s: %w", exe, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return "", fmt.Errorf("%s: %w", exe, err)
			}
			return string(bytes.TrimRight(b, "\x00")), nil
		}
	}
	return "", nil
}

// linked adds the libraries of a file, by the names that the loader asks for.
func linked(loader, file string, libs map[string]string) error {
	cmd := exec.Command(loader, "--list", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the libraries of %s: %w: %s", file, err, strings.TrimSpace(stderr.String()))
	}
	for _, line := range strings.Split(string(out), "\n") {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			continue // the loader itself, the kernel's own
		}
		path, _, _ := strings.Cut(rest, " (")
		if strings.Contains(path, "not found") {
			return fmt.Errorf("%s needs %s, which is not on this machine", file, name)
		}
		libs[filepath.Base(name)] = path
	}
	return nil
}
