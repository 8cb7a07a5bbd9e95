package oip_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"mlc.dev/mlc/runtime/serve/oip"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// python is the interpreter of the tests that take Triton's client, or skips.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("MLC_TEST_PYTHON")
	if name == "" {
		name = "python3"
	}
	if out, err := exec.Command(name, "-c", "import tritonclient.http, tritonclient.grpc").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %s has no tritonclient[http,grpc], or MLC_TEST_PYTHON names another: %v: %.200s", name, err, out)
	}
	return name
}

// TestTritonClient runs Triton's own client against both protocols on loopback.
func TestTritonClient(t *testing.T) {
	python := python(t)
	s, ms := serve(t, oip.Options{})
	g := grpc.NewServer(oip.ServerOptions(oip.Options{})...)
	oip.Register(g, ms, oip.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	defer func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for model, least := range map[string]int{"everything": 40, "shout": 40} {
		t.Run(model, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), python, "testdata/triton_client.py", s.Listener.Addr().String(), l.Addr().String(), model).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			m := regexp.MustCompile(`(?m)^(\d+) checks passed$`).FindSubmatch(out)
			if m == nil {
				t.Fatalf("%s", out)
			}
			if n, err := strconv.Atoi(string(m[1])); err != nil || n < least {
				t.Fatalf("%s: at least %d are wanted", m[0], least)
			}
			t.Logf("%s", m[0])
		})
	}
}

// TestFieldNumbers holds our messages against those that Triton's client carries.
func TestFieldNumbers(t *testing.T) {
	ours, err := proto.Marshal(protodesc.ToFileDescriptorProto(pb.File_grpc_service_proto))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), python(t), "testdata/descriptors.py")
	c.Stdin = bytes.NewReader(ours)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
