package main

import (
	"os"
	"os/exec"
	"strings"
	"sync"
)

// pipReaches reports whether pip can get a package here, as a script would. It is
// asked once.
var pipReaches = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "mlc-pip-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	return exec.Command("python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", dir, "threadpoolctl==3.6.0").Run() == nil
})

// pipVariables are ours that say how pip gets at its index.
func pipVariables() map[string]string {
	out := map[string]string{}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PIP_") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			out[name] = value
		}
	}
	return out
}
