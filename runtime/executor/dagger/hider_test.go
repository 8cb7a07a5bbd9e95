package dagger

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestHider: no part of a secret that says something is seen, however it is written, and
// a secret that begins as another one is hidden whole.
func TestHider(t *testing.T) {
	secrets := map[string]string{"quoted": `pa"ss&<w>ord\x`, "key": "-----BEGIN KEY-----\nMIIEsecretline1AAAA\nsecretline2BBBB\n}\n", "long": "hunter2-long", "short": "hunter2"}
	hide := hider(secrets)
	for _, v := range secrets {
		b, err := json.Marshal(map[string]string{"v": v})
		if err != nil {
			t.Fatal(err)
		}
		var raw strings.Builder
		e := json.NewEncoder(&raw)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		for _, seen := range append(strings.Split(v, "\n"), v, string(b), raw.String()) {
			got := hide.Replace("it is " + seen + ".")
			for _, part := range []string{"ss&", `ss\u0026`, "ord", "MIIE", "line2", "BEGIN", "hunter", "long"} {
				if strings.Contains(got, part) {
					t.Errorf("%q of %q", part, got)
				}
			}
		}
	}
	if got := hider(nil).Replace("as it is"); got != "as it is" {
		t.Error(got)
	}
}
