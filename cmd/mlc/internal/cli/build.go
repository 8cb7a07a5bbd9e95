package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/cmd/internal/serving"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/state"
	"mlc.dev/mlc/stdlib"
)

func (a *app) buildCmd() *cobra.Command {
	var out, push, name string
	c := &cobra.Command{
		Use:   "build SERVICE|MODEL[@ALIAS|@vN]",
		Short: "Make a container image of a service, or one that predicts files",
		Long: "Makes an OCI image, of nothing but our program, ONNX Runtime and the models: of a\n" +
			"service of the spec, with the versions that its aliases mean now; or else of a\n" +
			"registered model's batch predictor. The same bundles and mlc give the same digest.\n\n" +
			"  docker run -p 8000:8000 --read-only --tmpfs /tmp IMAGE\n" +
			"  docker run -v $PWD:/data IMAGE --input rows.csv --output predictions.parquet",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" && push == "" {
				return misuse("nowhere to put the image: name an archive with --output, or a registry with --push")
			}
			if name != "" && out == "" {
				return misuse("--tag names the image of an archive: give --output too; --push has a reference of its own")
			}
			if name != "" {
				if err := oci.Named(name); err != nil {
					return err
				}
			}
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			img, what, tag, err := a.image(c.Context(), s, args[0])
			if err != nil {
				return err
			}
			if name != "" {
				tag = name
			}
			built, err := oci.Build(img)
			if err != nil {
				return err
			}
			digest, err := oci.Digest(built)
			if err != nil {
				return err
			}
			what["digest"] = digest
			if out != "" {
				if err := oci.Save(built, out, tag); err != nil {
					return err
				}
				what["archive"] = out
			}
			if push != "" {
				if what["pushed"], err = oci.Push(c.Context(), built, push); err != nil {
					return err
				}
			}
			if a.json {
				a.view.Emit("built", what)
				return nil
			}
			if what["service"] != nil {
				a.view.Printf("service %s is image %s\n", what["service"], digest)
			} else {
				a.view.Printf("%s version %d is image %s\n", what["model"], what["version"], digest)
			}
			if out != "" {
				a.view.Printf("archive %s\n", out)
			}
			if push != "" {
				a.view.Printf("pushed %s\n", what["pushed"])
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "write an OCI archive to a `file`")
	c.Flags().StringVar(&name, "tag", "", "call the archive's image by a `reference`, as a cluster that loads it will; by default SERVICE:latest or MODEL:vN")
	c.Flags().StringVar(&push, "push", "", "push to a registry under a `reference`")
	return c
}

// image is that of a service of the spec by this name, or else of a model's
// batch predictor; what tells of it, and tag names it.
func (a *app) image(ctx context.Context, s *runtime.System, name string) (img oci.Image, what map[string]any, tag string, err error) {
	if !strings.Contains(name, "@") {
		svc, err := a.declared(ctx, name)
		if err != nil {
			return img, nil, "", err
		}
		if svc != nil {
			img, err = serviceImage(ctx, s, svc)
			return img, map[string]any{"service": svc.Name}, svc.Name + ":latest", err
		}
	}
	v, err := s.State.Resolve(name)
	if err != nil {
		// It may be a service that a mistake hides, or a batch.
		r, specErr := a.compileFor(ctx, true)
		if specErr != nil {
			return img, nil, "", specErr
		}
		for _, b := range r.Batches {
			if b.Name == name {
				err = diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("%q is a batch: it has no image of its own", name), Mend: fmt.Sprintf("`mlc build %s` makes one that predicts files", b.Model)}
			}
		}
		return img, nil, "", err
	}
	if err := s.Store.Verify(ctx, v.Bundle, s.FileDigest); err != nil {
		return img, nil, "", gone(v, err)
	}
	img, err = predictor(ctx, s, v)
	return img, map[string]any{"model": v.Model, "version": v.Version}, fmt.Sprintf("%s:v%d", v.Model, v.Version), err
}

// declared is the spec's service of a name, or nil: without a sound spec there is
// none.
func (a *app) declared(ctx context.Context, name string) (*service.Service, error) {
	vars, err := a.variables()
	if err != nil {
		return nil, err
	}
	r, list := compiler.Compile(ctx, compiler.Options{Dir: a.dir, Env: a.env, Vars: vars, Trained: true}, stdlib.Kinds())
	if list.HasErrors() {
		return nil, nil
	}
	for _, s := range r.Services {
		if s.Name == name {
			return &s.Service, nil
		}
	}
	return nil, nil
}

// Folders of an image.
const (
	imageProgram = "mlc"
	imageBundle  = "bundle"
	imageService = "service"
	imageData    = "data"
)

// programImage is an image with one of our programs, its libraries and ONNX Runtime,
// run by a user of no rights, in a folder that it may write to.
func programImage(exe, title string) (oci.Image, error) {
	var none oci.Image
	lib, err := ort.Find()
	if err != nil {
		return none, err
	}
	program, err := portable.Find(exe, lib.Path)
	if err != nil {
		return none, err
	}
	base := []oci.File{
		{Name: "tmp", Mode: os.ModeDir | os.ModeSticky | 0o777}, {Name: imageData, Mode: os.ModeDir | 0o777},
		{Name: "etc/passwd", Bytes: []byte("root:x:0:0:root:/root:/sbin/nologin\nmlc:x:65532:65532:mlc:/data:/sbin/nologin\n")},
		{Name: "etc/group", Bytes: []byte("root:x:0:\nmlc:x:65532:\n")},
	}
	for _, f := range program.Files {
		base = append(base, oci.File{Name: imageProgram + "/" + f.Name, Path: f.Path, Mode: 0o755})
	}
	i := oci.Image{Architecture: goruntime.GOARCH, Layers: [][]oci.File{base}, User: "65532:65532", Workdir: "/" + imageData,
		Entrypoint: program.Command("/" + imageProgram), Labels: map[string]string{"org.opencontainers.image.title": title, "dev.mlc.version": about.Version()}}
	for name, value := range program.Env("/" + imageProgram) {
		i.Env = append(i.Env, name+"="+value)
	}
	return i, nil
}

// predictor is the image of a version's batch predictor.
func predictor(ctx context.Context, s *runtime.System, v state.Version) (oci.Image, error) {
	self, err := os.Executable()
	if err != nil {
		return oci.Image{}, err
	}
	i, err := programImage(self, v.Model)
	if err != nil {
		return i, err
	}
	files, err := s.Store.Files(ctx, v.Bundle)
	if err != nil {
		return i, gone(v, err)
	}
	var layer []oci.File
	for _, f := range files {
		path, err := s.Store.Blob(ctx, f.Digest)
		if err != nil {
			return i, gone(v, err)
		}
		layer = append(layer, oci.File{Name: imageBundle + "/" + f.Path, Path: path})
	}
	i.Layers = append(i.Layers, layer)
	i.Entrypoint = append(i.Entrypoint, "predict", "--bundle", "/"+imageBundle)
	i.Labels["dev.mlc.models"] = fmt.Sprintf("%s=v%d=%s", v.Model, v.Version, v.Bundle)
	return i, nil
}

// serverName is the program that serves in an image.
const serverName = "mlc-serve"

// server finds it: beside this program, or on the PATH.
func server() (string, error) {
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), serverName); exists(p) {
			return p, nil
		}
	}
	if p, err := exec.LookPath(serverName); err == nil {
		return p, nil
	}
	return "", diag.Diagnostic{Severity: diag.Error, Code: diag.NoServer, What: "there is no " + serverName + " beside this program or on the PATH", Why: "it is what runs in a service's image",
		Mend: "go install -ldflags=-s mlc.dev/mlc/cmd/mlc-serve@latest, or make build in a checkout"}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// certificates are those of the authorities that this machine trusts.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// serviceImage is the image of a service with the versions that its references
// mean now, in the form that mlc-serve reads.
func serviceImage(ctx context.Context, s *runtime.System, svc *service.Service) (oci.Image, error) {
	exe, err := server()
	if err != nil {
		return oci.Image{}, err
	}
	i, err := programImage(exe, svc.Name)
	if err != nil {
		return i, err
	}
	files, models, err := serviceFolder(ctx, s, svc)
	if err != nil {
		return i, err
	}
	i.Labels["dev.mlc.models"] = strings.Join(models, " ")
	var layer []oci.File
	for _, f := range files {
		f.Name = imageService + "/" + f.Name
		layer = append(layer, f)
	}
	// Whatever the service is told to call when it starts may ask for them: a bucket, a
	// database, a collector of traces.
	if exists(certificates) {
		layer = append(layer, oci.File{Name: certificates[1:], Path: certificates})
	} else if l := svc.Log; l != nil && l.TLS != nil && l.TLS.CA == "" {
		return i, diag.Diagnostic{Severity: diag.Error, Code: diag.FileMissing, What: "no file " + certificates, Why: "the service trusts the system's authorities, and an image gets those of this machine",
			Mend: "install ca-certificates, or name the authorities of Kafka's brokers: log: tls: ca"}
	}
	i.Layers = append(i.Layers, layer)
	i.Entrypoint = append(i.Entrypoint, "/"+imageService)
	return i, nil
}

// serviceFolder is what mlc-serve reads: the service, the index and the models, which are
// the versions told as model@alias=v3=digest.
func serviceFolder(ctx context.Context, s *runtime.System, svc *service.Service) (out []oci.File, models []string, err error) {
	index := map[string]serve.FolderEntry{}
	packed := map[plan.Digest]bool{}
	for _, ref := range svc.Models() {
		v, err := s.State.Resolve(ref.String())
		if err != nil {
			return nil, nil, err
		}
		if err := s.Store.Verify(ctx, v.Bundle, s.FileDigest); err != nil {
			return nil, nil, gone(v, err)
		}
		e := serve.FolderEntry{Version: serve.Version{Number: v.Version, Bundle: v.Bundle}, Dir: v.Bundle.Short(), Files: map[string]plan.Digest{}}
		files, err := s.Store.Files(ctx, v.Bundle)
		if err != nil {
			return nil, nil, gone(v, err)
		}
		for _, f := range files {
			if f.Path != bundle.ModelFile && f.Path != bundle.SignatureFile {
				continue
			}
			e.Files[f.Path] = f.Digest
			if packed[v.Bundle] {
				continue
			}
			path, err := s.Store.Blob(ctx, f.Digest)
			if err != nil {
				return nil, nil, gone(v, err)
			}
			out = append(out, oci.File{Name: serving.ModelsDir + "/" + e.Dir + "/" + f.Path, Path: path})
		}
		packed[v.Bundle] = true
		index[ref.String()] = e
		models = append(models, fmt.Sprintf("%s=v%d=%s", ref, v.Version, v.Bundle))
	}
	for name, v := range map[string]any{serving.ServiceFile: svc, serving.ModelsDir + "/" + serve.IndexFile: index} {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return nil, nil, err
		}
		out = append(out, oci.File{Name: name, Bytes: b})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, models, nil
}
