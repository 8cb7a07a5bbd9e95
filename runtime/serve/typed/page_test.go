package typed

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/serve/api"
)

// TestPageIsWholeAndClosed: it takes nothing from elsewhere, and no script but its
// own can run.
func TestPageIsWholeAndClosed(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	w := get(a, "/")
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %q", policy, want)
		}
	}
	if n := len(regexp.MustCompile(`'sha256-[A-Za-z0-9+/]{43}='`).FindAllString(policy, -1)); n != 2 || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	html := w.Body.String()
	for _, tag := range []string{"script", "style"} {
		if strings.Count(html, "<"+tag) != 1 || strings.Count(html, "<"+tag+">") != 1 {
			t.Errorf("there is not just one plain <%s>", tag)
		}
	}
	if bad := regexp.MustCompile(`(?i)https?://|\ssrc=|\sstyle=|\son[a-z]+=|innerHTML|eval\(`).FindString(html); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// browser is a headless Chromium, told what to do over pipes.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	id      int
	session string
	// console is what it complained of: errors, and scripts that the policy stopped.
	console []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("SKIPPED: no chromium; apt-get install chromium")
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "--window-size=1200,1000")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		b.session = ""
		b.do("Browser.close", nil)
		cmd.Wait()
		in.Close()
		out.Close()
	})
	return b
}

// do calls a method of the DevTools protocol and returns its result.
func (b *browser) do(method string, params any) json.RawMessage {
	b.t.Helper()
	b.id++
	msg, err := json.Marshal(map[string]any{"id": b.id, "method": method, "params": params, "sessionId": b.session})
	if err != nil {
		b.t.Fatal(err)
	}
	if b.session == "" {
		msg = []byte(strings.Replace(string(msg), `,"sessionId":""`, "", 1))
	}
	if _, err := b.in.Write(append(msg, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		line, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatal(err)
		}
		var got struct {
			ID     int
			Method string
			Params json.RawMessage
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(line[:len(line)-1], &got); err != nil {
			b.t.Fatal(err)
		}
		if got.Method == "Log.entryAdded" && strings.Contains(string(got.Params), `"level":"error"`) || got.Method == "Runtime.exceptionThrown" {
			b.console = append(b.console, string(got.Params))
		}
		if got.ID == b.id {
			if got.Error != nil {
				b.t.Fatalf("%s: %s", method, got.Error.Message)
			}
			return got.Result
		}
	}
}

// open goes to a page.
func (b *browser) open(url string) {
	b.t.Helper()
	var target struct{ TargetID string }
	if err := json.Unmarshal(b.do("Target.createTarget", map[string]any{"url": "about:blank"}), &target); err != nil {
		b.t.Fatal(err)
	}
	var session struct{ SessionID string }
	if err := json.Unmarshal(b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}), &session); err != nil {
		b.t.Fatal(err)
	}
	b.session = session.SessionID
	b.do("Log.enable", nil)
	b.do("Runtime.enable", nil)
	b.do("Page.navigate", map[string]any{"url": url})
}

// eval runs an expression in the page, waits for what it promises, and returns that.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var res struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	if err := json.Unmarshal(b.do("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}), &res); err != nil {
		b.t.Fatal(err)
	}
	if res.ExceptionDetails != nil {
		b.t.Fatalf("%s: %v", expression, res.ExceptionDetails)
	}
	return fmt.Sprint(res.Result.Value)
}

// until waits for a condition to hold in the page.
func (b *browser) until(condition string) {
	b.t.Helper()
	b.eval(`new Promise(done => { const look = () => (` + condition + `) ? done(true) : setTimeout(look, 10); look() })`)
}

// shoot keeps a picture of the page in the folder MLC_TEST_SCREENSHOTS, if that is set.
func (b *browser) shoot(name string) {
	dir := os.Getenv("MLC_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	if err := json.Unmarshal(b.do("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}), &shot); err != nil {
		b.t.Fatal(err)
	}
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestPageInChromium makes a prediction and a mistake on the page, for every task.
func TestPageInChromium(t *testing.T) {
	b := newBrowser(t)
	for task, want := range map[string]string{kind.Binary: "false", kind.Multiclass: "a", kind.Multilabel: "none", kind.Regression: "0", kind.Quantile: "0 … 0.1", kind.Count: "0", kind.Anomaly: "false"} {
		a, m := setup(birds(task), nil)
		s := httptest.NewServer(a.Handler())
		b.session = ""
		b.open(s.URL + "/")
		b.until(`document.readyState === "complete" && document.getElementById("work") && !document.getElementById("work").hidden`)
		if n := b.eval(`[...document.querySelectorAll("#form input, #form select")].filter(e => !e.labels.length || !e.labels[0].textContent).length`); n != "0" {
			t.Errorf("%s inputs have no label", n)
		}
		b.eval(`document.getElementById("f1").value = "12.5"; document.getElementById("f2-null").click(); document.getElementById("predict").click()`)
		b.until(`document.querySelector("#result .answer")`)
		if got := b.eval(`document.querySelector("#result .answer").textContent`); got != want {
			t.Errorf("%s: the page says %q", task, got)
		}
		m.mu.Lock()
		cols := columns(a, m.last)
		m.mu.Unlock()
		if !same(cols["bird.weight"], []float64{12.5}) || !same(cols["bird.species"], []string{"robin"}) || cols["bird.eggs"].([]float64)[0] == 0 {
			t.Errorf("the model got %v", cols)
		}
		b.shoot(task)
		decides := task == kind.Binary || task == kind.Anomaly
		if got := b.eval(`document.getElementById("result").textContent.includes("true from 0.5")`); got != fmt.Sprint(decides) {
			t.Errorf("%s: the page tells the threshold: %s", task, got)
		}
		if decides { // another version, whose threshold the page does not know
			m.mu.Lock()
			m.infer = func(_ context.Context, c api.Call) (api.Answer, error) {
				a := answer(m.sig, c.Rows)
				a.Version = "4"
				return a, nil
			}
			m.mu.Unlock()
			b.eval(`document.getElementById("predict").click()`)
			b.until(`document.getElementById("result").textContent.includes("version 4")`)
			if got := b.eval(`document.getElementById("result").textContent.includes("true from")`); got != "false" {
				t.Errorf("%s: the page tells another version's threshold", task)
			}
		}
		curl := b.eval(`document.getElementById("curl").textContent`)
		if !strings.Contains(curl, s.URL+"/v1/predict") || !strings.Contains(curl, `"bird.weight":12.5,"bird.eggs":null`) {
			t.Errorf("curl: %s", curl)
		}
		b.eval(`document.getElementById("f1").value = "-3"; document.getElementById("f5").value = "soon"; document.getElementById("predict").click()`)
		b.until(`document.querySelector("#result .fault")`)
		if got := b.eval(`document.getElementById("f1-fault").textContent + "|" + document.getElementById("f5-fault").textContent + "|" + document.activeElement.id`); got != `-3 is out of range; it takes numbers from 0 to 1000|"soon" is no RFC 3339 timestamp; write it like 2024-01-31T12:00:00Z|f1` {
			t.Errorf("faults: %s", got)
		}
		b.shoot(task + "-faults")
		for _, c := range b.console {
			if !strings.Contains(c, "422") { // which the browser counts as an error
				t.Errorf("%s: %s", task, c)
			}
		}
		s.Close()
	}
}
