// Package plan is what would run: steps as pure data, the one key function, and
// the saved form. What is saved is what runs.
package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Digest names content: "sha256:" and 64 hexadecimal digits.
type Digest string

// DigestOf returns the digest of bytes.
func DigestOf(b []byte) Digest {
	h := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(h[:]))
}

// Short is the digest's first twelve digits, for people.
func (d Digest) Short() string {
	s := strings.TrimPrefix(string(d), "sha256:")
	return s[:min(12, len(s))]
}

// Plan is the steps of a system in an order in which they can run.
type Plan struct {
	System string `json:"system"`
	Steps  []Step `json:"steps"`
}

// Step is one unit of work.
type Step struct {
	// ID is what people call it, unique in the plan: "model.train churn".
	ID string `json:"id"`
	Op string `json:"op"`
	// Version is the implementation's, with that of the kinds that take part.
	Version string `json:"version"`
	// Args are everything that the spec says of the step, canonically.
	Args    json.RawMessage `json:"args"`
	Inputs  []Input         `json:"inputs,omitempty"`
	Outputs []string        `json:"outputs"`
	// Container is what the user says of the container that the step runs in; nil:
	// nothing. What of it can change the result is in Args and Inputs too.
	Container *Container `json:"container,omitempty"`
	// Needs and At do not change what comes out, so they are not in the key, but
	// for the class of device.
	Needs Needs  `json:"needs"`
	At    string `json:"at"` // path of the declaration in the spec
	// ArgAt maps the fields of Args, as in "args.rounds", to paths in the spec.
	ArgAt map[string]string `json:"arg_at,omitempty"`
}

// Input is what a step reads: an output of an earlier step, or files.
type Input struct {
	Name   string   `json:"name"`
	Step   int      `json:"step"` // index in Steps; -1: Files
	Output string   `json:"output,omitempty"`
	Files  []string `json:"files,omitempty"` // relative to the spec's folder, or absolute
	// Root, where it is not empty, is the folder that Files lie in: the stage sees
	// them under their names below it, and the names are part of the content.
	Root string `json:"root,omitempty"`
	// Registered, in place of Files, is the bundle that an alias names; nothing where
	// the alias is nowhere.
	Registered *Registered `json:"registered,omitempty"`
	// Tree, in place of Files, is a tree of the store: what an earlier run made.
	Tree Digest `json:"tree,omitempty"`
}

// Registered names a version of the registry.
type Registered struct {
	Model string `json:"model"`
	Alias string `json:"alias"`
}

// String is the name as users write it.
func (r Registered) String() string { return r.Model + "@" + r.Alias }

// ArchiveInput is the name of the input that is the container's root file system,
// an OCI archive, and not laid out in the stage.
const ArchiveInput = "archive"

// Container is the user's part of a step's container.
type Container struct {
	// Image is a reference of a registry. Without it the root file system is the
	// input ArchiveInput, or else the runner's own base.
	Image string `json:"image,omitempty"`
	// Env are variables by name.
	Env map[string]string `json:"env,omitempty"`
	// Secrets are references, "env:NAME" or "file:PATH", by the variable that gets
	// the value. They are not in the key.
	Secrets map[string]string `json:"secrets,omitempty"`
	// Caches are folders that outlive the step, by name. They are not in the key.
	Caches map[string]string `json:"caches,omitempty"`
}

// Needs is what a step asks of a runner.
type Needs struct {
	CPU    int   `json:"cpu"`
	Memory int64 `json:"memory"`
	// Strict: the user asked for it, so that no smaller runner will do. Operations
	// of mlc's own make do with less.
	Strict bool `json:"strict,omitempty"`
	GPUs   int  `json:"gpus,omitempty"`
	// GPUKind is the kind that a runner declares, or "" for any.
	GPUKind string            `json:"gpu_kind,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"` // that a runner has to have
	// Container: only a runner that runs containers will do.
	Container bool `json:"container,omitempty"`
	// Timeout ends the step; 0: never.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Key digests exactly what can change a step's result: the key's own format, the
// operation and its version, the engines that compute (the digest of the ONNX
// Runtime library, and of the image that the user's command runs in), the class of
// device, the arguments, and the content of the inputs in order. It leaves out
// positions, limits and clocks: moving a line must not retrain a model.
func (s Step) Key(engines string, inputs []Digest) Digest {
	var args bytes.Buffer
	if err := json.Compact(&args, s.Args); err != nil {
		panic(fmt.Sprintf("plan: arguments of %s: %v", s.ID, err)) // made by lower
	}
	type in struct {
		Name   string
		Digest Digest
	}
	ins := make([]in, len(inputs))
	for i, d := range inputs {
		ins[i] = in{s.Inputs[i].Name, d}
	}
	device := ""
	if s.Needs.GPUs > 0 {
		device = "gpu " + s.Needs.GPUKind
	}
	b, err := json.Marshal(struct {
		Format, Op, Version, Engines string
		Device                       string `json:",omitempty"`
		Args                         json.RawMessage
		Inputs                       []in
		Outputs                      []string
	}{"mlc.step.v1", s.Op, s.Version, engines, device, args.Bytes(), ins, s.Outputs})
	if err != nil {
		panic(err) // plain data
	}
	return DigestOf(b)
}

// Digest identifies a plan: two specs with the same digest would run the same.
func (p *Plan) Digest() Digest {
	q := Plan{System: p.System, Steps: append([]Step(nil), p.Steps...)}
	for i := range q.Steps {
		q.Steps[i].At, q.Steps[i].ArgAt = "", nil
	}
	b, err := json.Marshal(q)
	if err != nil {
		panic(err) // plain data
	}
	return DigestOf(b)
}

// Text prints the steps, a line each with what they read, for golden tests.
func (p *Plan) Text() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s", s.ID)
		for i, in := range s.Inputs {
			sep := ", "
			if i == 0 {
				sep = " <- "
			}
			if in.Registered != nil {
				fmt.Fprintf(&b, "%s%s", sep, in.Registered)
			} else if in.Step < 0 {
				fmt.Fprintf(&b, "%s%s", sep, strings.Join(in.Files, " "))
			} else {
				fmt.Fprintf(&b, "%s%s[%s]", sep, p.Steps[in.Step].ID, in.Output)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Saved is a plan in a file, with all that must not have moved when it is applied.
type Saved struct {
	Format      string    `json:"format"`
	MLC         string    `json:"mlc"`
	Created     time.Time `json:"created"`
	Environment string    `json:"environment"`
	// Lineage and Serial are the state's, Inputs the digest of what the plan's
	// files hold.
	Lineage string            `json:"lineage"`
	Serial  int64             `json:"serial"`
	Inputs  map[string]Digest `json:"inputs"`
	Digest  Digest            `json:"digest"`
	Plan    *Plan             `json:"plan"`
}

// SavedFormat is the version of the saved form; readers refuse others.
const SavedFormat = "mlc.plan.v1"
