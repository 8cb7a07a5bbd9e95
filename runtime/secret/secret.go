// Package secret finds the values of secrets: specs and environments hold
// references only.
package secret

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Value is the value that a reference names: "env:NAME" or "file:PATH".
func Value(ref string) (string, error) { return In(".")(ref) }

// In is Value with the paths of files from a folder.
func In(dir string) func(ref string) (string, error) {
	return func(ref string) (string, error) {
		if name, ok := strings.CutPrefix(ref, "env:"); ok {
			v, set := os.LookupEnv(name)
			if !set {
				return "", fmt.Errorf("the environment variable %s is not set", name)
			}
			return v, nil
		}
		if path, ok := strings.CutPrefix(ref, "file:"); ok {
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			b, err := os.ReadFile(path)
			return strings.TrimRight(string(b), "\n"), err
		}
		return "", fmt.Errorf("%q is no reference: write env:NAME or file:PATH", ref)
	}
}
