package generate

import (
	"fmt"
	"strings"
)

// words are the runs of ASCII letters and digits in a name.
func words(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// A style makes an identifier of a name's words.
type style struct {
	join func(words []string) string
	// prefix stands before a digit.
	prefix string
	// suffix goes before the number that tells clashing names apart.
	suffix   string
	reserved map[string]bool
}

// The styles of the clients. What Python reserves is what would hide a type within
// the class, and its keywords.
var (
	goStyle = style{prefix: "F", join: func(w []string) string {
		var b strings.Builder
		for _, s := range w {
			b.WriteString(strings.ToUpper(s[:1]) + s[1:])
		}
		return b.String()
	}}
	pyStyle = style{prefix: "f_", suffix: "_", join: func(w []string) string { return strings.ToLower(strings.Join(w, "_")) },
		reserved: set("and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with bool datetime float int str")}
	tsStyle = style{prefix: "f", join: func(w []string) string {
		s := goStyle.join(w)
		return strings.ToLower(s[:1]) + s[1:]
	}}
)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

func (s style) one(name string) string {
	w := words(name)
	if len(w) == 0 {
		w = []string{"feature"}
	}
	id := s.join(w)
	if id[0] >= '0' && id[0] <= '9' {
		id = s.prefix + id
	}
	if s.reserved[id] {
		id += "_"
	}
	return id
}

// distinct are identifiers for names, in their order. Names that would clash get a
// number; one that clashes with none keeps its own.
func (s style) distinct(names []string) []string {
	natural, count := make([]string, len(names)), map[string]int{}
	for i, n := range names {
		natural[i] = s.one(n)
		count[natural[i]]++
	}
	taken := map[string]bool{}
	for id := range count {
		taken[id] = true
	}
	out, first := make([]string, len(names)), map[string]bool{}
	for i, id := range natural {
		out[i] = id
		if !first[id] {
			first[id] = true
			continue
		}
		for n := 2; taken[out[i]]; n++ {
			out[i] = fmt.Sprintf("%s%s%d", id, s.suffix, n)
		}
		taken[out[i]] = true
	}
	return out
}

// dns is a name as Kubernetes takes it: RFC 1035, at most limit bytes.
func dns(name string, limit int) string {
	id := strings.ToLower(strings.Join(words(name), "-"))
	if id == "" || id[0] >= '0' && id[0] <= '9' {
		id = "mlc-" + id
	}
	return strings.Trim(id[:min(len(id), limit)], "-")
}
