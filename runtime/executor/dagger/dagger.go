// Package dagger runs steps as containers on a Dagger engine.
//
// A step's container has the root file system of its image or of the runner's
// base, and three folders of ours: /mlc, read-only, the very mlc program that
// plans, with the libraries and the loader that it has here; /in, the inputs;
// /stage, what the stage contract asks for. So mlc's own part of a step computes
// the same bits in any image.
//
// What a step makes stays on its engine for the steps after it, and is brought
// into the store once.
package dagger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dagger.io/dagger"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/portable"
)

// Executor runs steps on the engine of one runner. Its session with the engine
// begins with the first step.
type Executor struct {
	Runner  env.Runner
	Store   *artifact.Store
	Program *portable.Program
	// Secret gives the value of a secret's reference.
	Secret func(ref string) (string, error)

	mu      sync.Mutex
	session *session
}

var _ executor.Executor = (*Executor)(nil)

// session is a connection to an engine, with what it has been given.
type session struct {
	*dagger.Client
	cancel  context.CancelFunc
	log     *executor.Tail
	program *dagger.Directory
	// commands are the processes of the session, on this machine.
	commands map[int]bool

	mu    sync.Mutex
	trees map[plan.Digest]*dagger.Directory // on the engine already
}

// Folders of the container.
const (
	programDir = "/mlc"
	inDir      = "/in"
	stageDir   = "/stage"
	eventsPath = "/run/mlc.sock"
)

// attempt makes each run of a step another one for the engine: it would answer a
// repetition, of a failure too, from its own memory. What may be remembered is
// decided by keys, above.
var attempt atomic.Int64

// Run runs a step in a container of its own.
func (e *Executor) Run(ctx context.Context, job executor.Job) (executor.Result, error) {
	s, err := e.connect(ctx)
	if err != nil {
		return executor.Result{}, err
	}
	res, err := e.run(ctx, s, job)
	if ctx.Err() != nil {
		return executor.Result{}, ctx.Err()
	}
	var u executor.Unavailable
	if errors.As(err, &u) && !u.Lasting {
		e.drop(s) // the next try begins a session of its own
	}
	return res, err
}

func (e *Executor) run(ctx context.Context, s *session, job executor.Job) (executor.Result, error) {
	var res executor.Result
	secrets, err := executor.Secrets(job.Step, e.Secret)
	if err != nil {
		return res, err
	}
	hide := hider(secrets)
	events, err := listen(func(ev executor.Event) {
		ev.Log, ev.Note = hide.Replace(ev.Log), hide.Replace(ev.Note)
		if job.OnEvent != nil {
			job.OnEvent(ev)
		}
	})
	if err != nil {
		return res, err
	}
	defer events.close()
	c, err := e.container(ctx, s, job, secrets, events.path)
	if err != nil {
		return res, err
	}
	done, err := c.Sync(ctx)
	if err != nil {
		return res, e.failed(s, job, hide, err)
	}
	code, err := done.ExitCode(ctx)
	if err != nil {
		return res, e.failed(s, job, hide, err)
	}
	if _, err := done.Directory(stageDir).Export(ctx, job.Dir); err != nil {
		return res, e.failed(s, job, hide, err)
	}
	if code != 0 {
		return res, e.ended(ctx, s, job, hide, done, code)
	}
	res.Outputs = map[string]plan.Digest{}
	for _, name := range job.Step.Outputs {
		d, err := e.Store.Put(ctx, filepath.Join(job.Dir, "out", name))
		if err != nil {
			return res, fmt.Errorf("output %s: %w", name, err)
		}
		res.Outputs[name] = d
		s.mu.Lock()
		s.trees[d] = done.Directory(path.Join(stageDir, "out", name))
		s.mu.Unlock()
	}
	res.Report, err = os.ReadFile(filepath.Join(job.Dir, "report.json"))
	return res, err
}

// leastLine is the length below which a line of a secret says nothing by itself.
const leastLine = 8

// hider replaces the values of secrets in what people get to see: whole, line by line, as
// what commands write comes, and as JSON has them. The longer ones come first: one may
// begin as another.
func hider(secrets map[string]string) *strings.Replacer {
	forms := map[string]bool{}
	for _, v := range secrets {
		parts := []string{v}
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= leastLine {
				parts = append(parts, line)
			}
		}
		for _, part := range parts {
			forms[part], forms[strings.TrimSpace(part)] = true, true
			for _, html := range []bool{true, false} {
				var b strings.Builder
				e := json.NewEncoder(&b)
				e.SetEscapeHTML(html)
				if e.Encode(part) == nil { // it always does
					quoted := strings.TrimSpace(b.String())
					forms[quoted[1:len(quoted)-1]] = true
				}
			}
		}
	}
	delete(forms, "")
	var pairs []string
	for _, form := range slices.SortedFunc(maps.Keys(forms), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		pairs = append(pairs, form, "***")
	}
	return strings.NewReplacer(pairs...)
}

// ended is the error of a command that ended with a status of its own.
func (e *Executor) ended(ctx context.Context, s *session, job executor.Job, hide *strings.Replacer, done *dagger.Container, code int) error {
	log, err := done.Stderr(ctx)
	if err != nil {
		return e.failed(s, job, hide, err)
	}
	faults, err := os.ReadFile(filepath.Join(job.Dir, "faults.json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return e.status(code, hide.Replace(log), []byte(hide.Replace(string(faults))))
}

// container is that of a step, up to and with its command.
func (e *Executor) container(ctx context.Context, s *session, job executor.Job, secrets map[string]string, events string) (*dagger.Container, error) {
	c := e.base(s, job)
	stage := s.Directory()
	b, err := json.Marshal(executor.NewStage(job))
	if err != nil {
		return nil, err
	}
	stage = stage.WithNewFile("stage.json", string(b)).WithSymlink(inDir, "in")
	for _, name := range job.Step.Outputs {
		stage = stage.WithNewDirectory(path.Join("out", name))
	}
	c = c.WithMountedDirectory(programDir, s.program, dagger.ContainerWithMountedDirectoryOpts{ReadOnly: true}).
		WithMountedDirectory(stageDir, stage).
		WithUnixSocket(eventsPath, s.Host().UnixSocket(events))
	for i, in := range job.Step.Inputs {
		if in.Name == plan.ArchiveInput {
			continue
		}
		at := "/" + filepath.ToSlash(executor.Folder(in.Name))
		if tree := job.Inputs[i].Tree; tree != "" {
			d, err := e.tree(ctx, s, tree)
			if err != nil {
				return nil, err
			}
			c = c.WithMountedDirectory(at, d, dagger.ContainerWithMountedDirectoryOpts{ReadOnly: true})
			continue
		}
		names, err := executor.Names(in)
		if err != nil {
			return nil, err
		}
		files := s.Directory()
		for k, f := range job.Inputs[i].Files {
			files = files.WithFile(filepath.ToSlash(names[k]), s.file(f))
		}
		c = c.WithMountedDirectory(at, files, dagger.ContainerWithMountedDirectoryOpts{ReadOnly: true})
	}
	vars := map[string]string{"HOME": "/tmp", "MLC_ATTEMPT": fmt.Sprintf("%d.%d", time.Now().UnixNano(), attempt.Add(1)), "GOMAXPROCS": strconv.Itoa(max(job.Step.Needs.CPU, 1))}
	maps.Copy(vars, e.Program.Env(programDir))
	if n := job.Step.Needs.GPUs; n > 0 {
		devices := make([]string, n)
		for i := range devices {
			devices[i] = strconv.Itoa(i)
		}
		c = c.ExperimentalWithGPU(devices)
	}
	if u := job.Step.Container; u != nil {
		maps.Copy(vars, u.Env)
		for _, name := range slices.Sorted(maps.Keys(u.Caches)) {
			c = c.WithMountedCache(u.Caches[name], s.CacheVolume("mlc "+name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		c = c.WithSecretVariable(name, s.SetSecret(name+" of "+job.Step.ID, secrets[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		c = c.WithEnvVariable(name, vars[name])
	}
	command := append(e.Program.Command(programDir), "stage", "--events", eventsPath, stageDir)
	return c.WithWorkdir(stageDir).WithExec(command, dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeAny}), nil
}

// base is the container's root file system: the step's own image or archive, else
// the runner's base.
func (e *Executor) base(s *session, job executor.Job) *dagger.Container {
	c := s.Container()
	base := e.Runner.Base
	if job.Step.Container != nil {
		for i, in := range job.Step.Inputs {
			if in.Name == plan.ArchiveInput {
				return c.Import(s.file(job.Inputs[i].Files[0])).WithUser("0:0")
			}
		}
		if job.Image != "" {
			base = env.Base{Image: job.Image}
		}
	}
	switch {
	case base.Image != "":
		return c.From(base.Image).WithUser("0:0")
	case base.Archive != "":
		return c.Import(s.file(base.Archive)).WithUser("0:0")
	}
	root := s.Directory().WithNewDirectory("tmp", dagger.DirectoryWithNewDirectoryOpts{Permissions: 0o1777}).WithNewDirectory("run").WithNewDirectory("proc").
		WithNewFile("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\n").WithNewFile("etc/group", "root:x:0:\n")
	if _, err := os.Stat(certificates); err == nil {
		root = root.WithFile(certificates, s.file(certificates))
	}
	return c.WithRootfs(root)
}

// file is one of this machine: itself, where a link leads to it.
func (s *session) file(path string) *dagger.File {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return s.Host().File(path)
}

// certificates are those that this host trusts.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// tree is a tree of the store on the engine: as a step there left it, or sent.
func (e *Executor) tree(ctx context.Context, s *session, d plan.Digest) (*dagger.Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir, ok := s.trees[d]; ok {
		return dir, nil
	}
	files, err := e.Store.Files(ctx, d)
	if err != nil {
		return nil, err
	}
	dir := s.Directory()
	for _, f := range files {
		blob, err := e.Store.Blob(ctx, f.Digest)
		if err != nil {
			return nil, err
		}
		dir = dir.WithFile(f.Path, s.file(blob))
	}
	s.trees[d] = dir
	return dir, nil
}

// Probe returns the version of the engine, or an executor.Unavailable. It runs
// nothing and closes the session.
func (e *Executor) Probe(ctx context.Context) (string, error) {
	s, err := e.connect(ctx)
	if err != nil {
		return "", err
	}
	version, err := s.Version(ctx)
	return version, errors.Join(err, e.Close())
}

// SDKVersion is the version of the Dagger SDK in this program, which the engine's has to fit.
func SDKVersion() string {
	const sdk = "dagger.io/dagger"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == sdk {
				return m.Version
			}
		}
	}
	return "unknown"
}

// connect returns the session, begun where there is none.
func (e *Executor) connect(ctx context.Context) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session != nil {
		return e.session, nil
	}
	s, err := e.dial(ctx)
	if err == nil {
		e.session = s
	}
	return s, err
}

// How long an engine may take to answer: one with an address is there or not, one
// that the SDK provides has to be brought first. A goodbye is waited for shortly:
// all that steps made is in the store.
const (
	dialTimeout    = 5 * time.Second
	connectTimeout = 30 * time.Second
	provideTimeout = 10 * time.Minute
	closeTimeout   = 5 * time.Second
)

// quiet holds the session command to its work: no advertising, no statistics.
var quiet = sync.OnceFunc(func() {
	for _, name := range []string{"DAGGER_NO_NAG", "DO_NOT_TRACK"} {
		if _, set := os.LookupEnv(name); !set {
			_ = os.Setenv(name, "1") // the SDK passes no other way on
		}
	}
})

// dialing keeps sessions from beginning at once, so that each finds its own command.
var dialing sync.Mutex

func (e *Executor) dial(ctx context.Context) (*session, error) {
	quiet()
	timeout := provideTimeout
	opts := []dagger.ClientOpt{}
	if e.Runner.Engine != "" {
		timeout = connectTimeout
		opts = append(opts, dagger.WithRunnerHost(e.Runner.Engine))
		if err := e.answers(ctx); err != nil {
			return nil, err
		}
	}
	// The session outlives the step that begins it.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &session{cancel: cancel, log: &executor.Tail{Limit: 64 << 10}, trees: map[plan.Digest]*dagger.Directory{}}
	type answer struct {
		client *dagger.Client
		err    error
	}
	answers := make(chan answer, 1)
	dialing.Lock()
	defer dialing.Unlock()
	before := sessions()
	go func() {
		c, err := dagger.Connect(life, append(opts, dagger.WithLogOutput(s.log))...)
		answers <- answer{c, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	// Without an engine the SDK's attempt lasts for minutes, whatever its context.
	giveUp := func(err error) (*session, error) {
		cancel()
		endSessions(before)
		return nil, err
	}
	select {
	case a := <-answers:
		if a.err != nil {
			cancel()
			return nil, e.unreachable(a.err.Error() + "\n" + s.log.String())
		}
		s.Client = a.client
		s.commands = newSessions(before)
	case <-timer.C:
		return giveUp(e.unreachable(fmt.Sprintf("no answer within %s", timeout)))
	case <-ctx.Done():
		return giveUp(ctx.Err())
	}
	dir := s.Directory()
	for _, f := range e.Program.Files {
		dir = dir.WithFile(f.Name, s.file(f.Path))
	}
	var err error
	if s.program, err = dir.Sync(ctx); err != nil {
		s.end()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if text := err.Error(); strings.Contains(text, "incompatible") {
			return nil, e.unreachable(text)
		}
		return nil, e.broke(err)
	}
	return s, nil
}

// answers dials an engine's own socket, where it has one: the SDK would wait for
// minutes for one that is not there.
func (e *Executor) answers(ctx context.Context) error {
	scheme, rest, _ := strings.Cut(e.Runner.Engine, "://")
	if scheme != "unix" && scheme != "tcp" {
		return nil
	}
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, scheme, rest)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return e.unreachable(err.Error())
	}
	return c.Close()
}

// drop ends a session that has failed.
func (e *Executor) drop(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == s {
		e.session = nil
		s.end()
	}
}

// Close ends the session.
func (e *Executor) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session != nil {
		e.session.end()
		e.session = nil
	}
	return nil
}

// end ends a session, and its command where that does not come to an end: after
// its engine has died it would wait for it for minutes.
func (s *session) end() {
	done := make(chan struct{})
	go func() {
		_ = s.Client.Close()
		close(done)
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		for pid := range s.commands {
			kill(pid)
		}
	}
	s.cancel()
}

// line is the executor's end of a stage's line.
type line struct {
	path string
	l    net.Listener
	dir  string
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// listen opens a socket for one stage. Its path is short: the system allows 107
// bytes.
func listen(on func(executor.Event)) (*line, error) {
	dir, err := os.MkdirTemp("", "mlc-")
	if err != nil {
		return nil, err
	}
	l := &line{dir: dir, path: filepath.Join(dir, "events")}
	if l.l, err = net.Listen("unix", l.path); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		for {
			c, err := l.l.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.conns = append(l.conns, c)
			l.mu.Unlock()
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				executor.Receive(c, on)
			}()
		}
	}()
	return l, nil
}

// close ends the line, and with it a stage that is still there.
func (l *line) close() {
	_ = l.l.Close()
	l.mu.Lock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	_ = os.RemoveAll(l.dir)
}
