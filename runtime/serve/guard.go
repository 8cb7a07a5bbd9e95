package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/serve/api"
)

// guard decides who may call, and how often.
type guard struct {
	bearer, keys [][sha256.Size]byte
	perClient    rate.Limit
	burst        int // of perClient
	proxies      []netip.Prefix

	mu       sync.Mutex
	now, old map[string]*rate.Limiter // two generations: who has not called for one is forgotten
}

// clients is the most callers of a generation.
const clients = 10_000

// Who calls without valid credentials may do so at this rate, by address: nobody
// tries keys, and those who have one are not held up.
const (
	guesses     = 10 // a second
	guessesOnce = 100
)

func newGuard(svc *service.Service, secret func(string) (string, error)) (*guard, error) {
	g := &guard{perClient: rate.Limit(svc.Limits.PerClient), burst: max(svc.Limits.PerClientBurst, int(svc.Limits.PerClient), 1), proxies: svc.Limits.Proxies, now: map[string]*rate.Limiter{}}
	if svc.Auth == nil {
		return g, nil
	}
	var errs []error
	for _, part := range []struct {
		refs []string
		to   *[][sha256.Size]byte
	}{{svc.Auth.Bearer, &g.bearer}, {svc.Auth.APIKey, &g.keys}} {
		for _, ref := range part.refs {
			v, err := secret(ref)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("secret %s: %w", ref, err))
			case v == "":
				errs = append(errs, fmt.Errorf("secret %s is empty, so anyone could call", ref))
			}
			*part.to = append(*part.to, sha256.Sum256([]byte(v)))
		}
	}
	return g, errors.Join(errs...)
}

// admit lets a caller in by its credentials, or says why not. client names it
// for its rate.
func (g *guard) admit(authorization, apiKey, remote string) (err *api.Error) {
	client := remote
	if len(g.bearer)+len(g.keys) > 0 {
		token, isBearer := bearerToken(authorization)
		sum, ok := [sha256.Size]byte{}, false
		if isBearer {
			sum = sha256.Sum256([]byte(token))
			ok = among(g.bearer, sum)
		}
		if !ok && apiKey != "" {
			sum = sha256.Sum256([]byte(apiKey))
			ok = among(g.keys, sum)
		}
		if !ok {
			if err := allow(g.limiter("guess "+remote, guesses, guessesOnce), "calls without valid credentials"); err != nil {
				return err
			}
			return api.Errorf(api.Unauthorized, "a valid token or key is needed")
		}
		client = string(sum[:])
	}
	if g.perClient <= 0 {
		return nil
	}
	return allow(g.limiter(client, g.perClient, g.burst), "requests")
}

// bearerToken is the token of a header Authorization (RFC 6750, section 2.1), whose
// scheme is in either case (RFC 9110, section 11.1).
func bearerToken(authorization string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	return strings.TrimLeft(token, " "), ok && strings.EqualFold(scheme, "Bearer")
}

// allow counts one of something, or refuses it.
func allow(l *rate.Limiter, what string) *api.Error {
	if l.Allow() {
		return nil
	}
	r := l.Reserve()
	wait := r.Delay()
	r.Cancel()
	return &api.Error{Kind: api.Overloaded, Text: fmt.Sprintf("more than %s", quota(l, what)), RetryAfter: max(wait, time.Second)}
}

// quota says what a limiter lets through, in the least of seconds, minutes and hours that
// has one.
func quota(l *rate.Limiter, what string) string {
	n, per := float64(l.Limit()), "a second"
	if n < 1 {
		n, per = n*60, "a minute"
	}
	if n < 1 {
		n, per = n*60, "an hour"
	}
	return strconv.FormatFloat(math.Round(n*1000)/1000, 'f', -1, 64) + " " + what + " " + per
}

// among compares with all, in a time that tells nothing of them.
func among(known [][sha256.Size]byte, sum [sha256.Size]byte) bool {
	found := 0
	for i := range known {
		found |= subtle.ConstantTimeCompare(known[i][:], sum[:])
	}
	return found == 1
}

// limiter is that of a client, made with a rate and a burst when it is new.
func (g *guard) limiter(client string, every rate.Limit, burst int) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l, ok := g.now[client]; ok {
		return l
	}
	l, ok := g.old[client]
	if !ok {
		l = rate.NewLimiter(every, burst)
	}
	if len(g.now) >= clients {
		g.old, g.now = g.now, map[string]*rate.Limiter{}
	}
	g.now[client] = l
	return l
}

// healthRPC is where the methods of gRPC's health are (grpc.health.v1).
const healthRPC = "/grpc.health.v1.Health/"

// openPath reports whether a path needs no credentials: health, for probes, and what
// describes the API to people.
func openPath(path string) bool {
	return path == "/" || path == "/openapi.json" || strings.HasPrefix(path, "/healthz/") || strings.HasPrefix(path, "/v2/health/") || strings.HasPrefix(path, healthRPC)
}

// asks lets who asks over HTTP in by its headers.
func (g *guard) asks(x api.Exchange) *api.Error {
	if len(g.bearer)+len(g.keys) == 0 && g.perClient <= 0 {
		return nil
	}
	return g.admit(x.Header("Authorization"), x.Header("X-Api-Key"), g.caller(x.RemoteAddr(), func() []string { return x.Headers("X-Forwarded-For") }))
}

// caller is the address of who asks over a connection from remote. A proxy that is
// trusted adds to the end of the header X-Forwarded-For whom it was asked by, so that
// what callers write there themselves is before that, and not believed. Of IPv6 it is the
// network of 64 bits: one caller has all of it (RFC 6177).
func (g *guard) caller(remote string, forwarded func() []string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := at.Addr().Unmap().WithZone("")
	if g.trusts(a) {
		hops := strings.Split(strings.Join(forwarded(), ","), ",")
		for i := len(hops) - 1; i >= 0 && g.trusts(a); i-- {
			hop := strings.TrimSpace(hops[i])
			next, err := netip.ParseAddr(hop)
			if p, perr := netip.ParseAddrPort(hop); perr == nil { // as some write it
				next, err = p.Addr(), nil
			}
			if err != nil {
				break
			}
			a = next.Unmap().WithZone("")
		}
	}
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// trusts reports whether an address is one of the proxies'.
func (g *guard) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// cors answers browsers of the declared origins; without any, none.
func cors(svc *service.Service, next http.Handler) http.Handler {
	if len(svc.CORS) == 0 {
		return next
	}
	allowed := map[string]bool{}
	for _, o := range svc.CORS {
		allowed[o] = true
	}
	headers := "Authorization, Content-Type, Inference-Header-Content-Length, Traceparent, X-API-Key, X-Request-Id, X-Request-Timeout"
	if name, ok := strings.CutPrefix(svc.Sticky, "header:"); ok {
		headers += ", " + name
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		w.Header().Add("Vary", "Origin")
		if origin != "" && (allowed[origin] || allowed["*"]) {
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "Inference-Header-Content-Length, Retry-After, X-Model-Version, X-Request-Id")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", headers)
				h.Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
