package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/state"
)

func (a *app) buildCmd() *cobra.Command {
	var out, push string
	c := &cobra.Command{
		Use:   "build MODEL[@ALIAS|@vN]",
		Short: "Make a container image that predicts files",
		Long:  "Makes an OCI image of a registered model's batch predictor: mlc, ONNX Runtime and the\nbundle, on nothing else. The same bundle and mlc give the same digest.\n\n  docker run -v $PWD:/data IMAGE --input rows.csv --output predictions.parquet",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" && push == "" {
				return errors.New("nowhere to put the image: name an archive with --output, or a registry with --push")
			}
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			v, err := s.State.Resolve(args[0])
			if err != nil {
				return err
			}
			if err := s.Store.Verify(c.Context(), v.Bundle, s.FileDigest); err != nil {
				return gone(v, err)
			}
			spec, err := predictor(c.Context(), s, v)
			if err != nil {
				return err
			}
			img, err := oci.Build(spec)
			if err != nil {
				return err
			}
			digest, err := oci.Digest(img)
			if err != nil {
				return err
			}
			done := map[string]any{"model": v.Model, "version": v.Version, "digest": digest}
			if out != "" {
				if err := oci.Save(img, out, fmt.Sprintf("%s:v%d", v.Model, v.Version)); err != nil {
					return err
				}
				done["archive"] = out
			}
			if push != "" {
				if done["pushed"], err = oci.Push(c.Context(), img, push); err != nil {
					return err
				}
			}
			if a.json {
				a.view.Emit("built", done)
				return nil
			}
			a.view.Printf("%s version %d is image %s\n", v.Model, v.Version, digest)
			if out != "" {
				a.view.Printf("archive %s\n", out)
			}
			if push != "" {
				a.view.Printf("pushed %s\n", done["pushed"])
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "write an OCI archive to a `file`")
	c.Flags().StringVar(&push, "push", "", "push to a registry under a `reference`")
	return c
}

// Folders of an image.
const (
	imageProgram = "mlc"
	imageBundle  = "bundle"
	imageData    = "data"
)

// predictor is the image of a version's batch predictor.
func predictor(ctx context.Context, s *runtime.System, v state.Version) (oci.Image, error) {
	var none oci.Image
	self, err := os.Executable()
	if err != nil {
		return none, err
	}
	lib, err := ort.Find()
	if err != nil {
		return none, err
	}
	program, err := portable.Find(self, lib.Path)
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
	files, err := s.Store.Files(ctx, v.Bundle)
	if err != nil {
		return none, gone(v, err)
	}
	var bundle []oci.File
	for _, f := range files {
		path, err := s.Store.Blob(ctx, f.Digest)
		if err != nil {
			return none, gone(v, err)
		}
		bundle = append(bundle, oci.File{Name: imageBundle + "/" + f.Path, Path: path})
	}
	i := oci.Image{Architecture: goruntime.GOARCH, Layers: [][]oci.File{base, bundle}, User: "65532:65532", Workdir: "/" + imageData,
		Entrypoint: append(program.Command("/"+imageProgram), "predict", "--bundle", "/"+imageBundle),
		Labels:     map[string]string{"org.opencontainers.image.title": v.Model, "dev.mlc.bundle": string(v.Bundle)}}
	for name, value := range program.Env("/" + imageProgram) {
		i.Env = append(i.Env, name+"="+value)
	}
	return i, nil
}
