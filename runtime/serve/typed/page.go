package typed

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// pageHTML is the page to try the API on. It is whole in itself and makes its form
// from /openapi.json, so it fits whatever model serves.
//
//go:embed page.html
var pageHTML string

// page is pageHTML with the policy that lets nothing but its own script and style run.
type page struct {
	body   []byte
	policy string
}

func newPage() page {
	hash := func(tag string) string {
		_, rest, _ := strings.Cut(pageHTML, "<"+tag+">")
		text, _, _ := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return page{[]byte(pageHTML), "default-src 'none'; script-src " + hash("script") + "; style-src " + hash("style") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
}

func (p page) serve(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(p.body)))
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.Write(p.body) //nolint:errcheck // whoever reads it is gone then
}
