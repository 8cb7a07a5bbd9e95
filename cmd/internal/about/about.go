// Package about tells which mlc a program is.
package about

import "runtime/debug"

// Version is what `mlc version` and `mlc-serve --version` tell: the module's version, or that of its
// commit for a build from a checkout.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "v0.1.0-dev"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += "+" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return v
}
