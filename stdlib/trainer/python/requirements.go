package python

import (
	"fmt"
	"regexp"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

var (
	// pinned is a requirement of one version, with its extras, marker and hashes. A
	// version with a star is many (PEP 440, "Version matching").
	pinned = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*===?\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*\s*(;.*|--hash=.*)?$`)
	// hashed is a requirement by the digest of its file, by name or from a URL.
	hashed = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?.*\s--hash=sha(256|384|512):[0-9a-f]+`)
	// option is one that leaves open nothing of what a pin says.
	option = regexp.MustCompile(`^(-i|--index-url|--extra-index-url|--trusted-host|--only-binary|--no-binary|--prefer-binary|--require-hashes|--pre)\b`)
	// apart are the characters that are one in a name (PEP 503).
	apart = regexp.MustCompile(`[-_.]+`)
)

// normal is a package's name as pip compares it.
func normal(name string) string { return strings.ToLower(apart.ReplaceAllString(name, "-")) }

// pins reads a file for pip: the packages that it pins, and a fault for each line
// that leaves open what it installs.
func pins(text string) (names map[string]bool, faults kind.Faults) {
	names = map[string]bool{}
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		first, line := i+1, lines[i]
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) { // joined before comments go, as pip does it
			i++
			line = strings.TrimSuffix(line, `\`) + lines[i]
		}
		if at := strings.Index(line, " #"); at >= 0 {
			line = line[:at]
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || option.MatchString(line) {
			continue
		}
		m := pinned.FindStringSubmatch(line)
		if m == nil {
			m = hashed.FindStringSubmatch(line)
		}
		if m == nil {
			faults = append(faults, kind.Fault{Field: requirementsField, Code: diag.BadArgs, What: fmt.Sprintf("line %d of the requirements pins nothing: %s", first, line),
				Why: "the same step would give another model another day", Mend: "write NAME==VERSION, as pip freeze does, or a --hash"})
			continue
		}
		names[normal(m[1])] = true
	}
	return names, faults
}
