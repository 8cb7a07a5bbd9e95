package oip_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip"
	"mlc.dev/mlc/runtime/serve/oip/oiptest"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

func dial(t *testing.T, o oip.Options, extra ...grpc.ServerOption) (*grpc.ClientConn, *fakeModels) {
	t.Helper()
	ms := repository(t)
	s := grpc.NewServer(append(oip.ServerOptions(o), extra...)...)
	oip.Register(s, ms, o)
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, ms
}

func TestGRPCClients(t *testing.T) {
	conn, ms := dial(t, oip.Options{})
	everyClient(t, ms, map[string]oiptest.Client{"raw": oiptest.GRPC(conn), "contents": oiptest.GRPCContents(conn)})
}

func floats(x ...float64) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{ModelName: "root", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP64", Shape: []int64{1, int64(len(x))},
		Contents: &pb.InferTensorContents{Fp64Contents: x}}}}
}

func TestInferOverGRPC(t *testing.T) {
	seen := ""
	conn, ms := dial(t, oip.Options{Key: "X-User"},
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			seen = info.FullMethod
			return h(ctx, req)
		}))
	c := pb.NewGRPCInferenceServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-user", "u", "x-request-id", "r-2")
	for _, compressor := range []string{"", gzip.Name, "deflate"} {
		r, err := c.ModelInfer(ctx, floats(4, 9), grpc.UseCompressor(compressor))
		if err != nil || r.ModelName != "root" || r.ModelVersion != "1" || r.Outputs[0].Contents.Fp64Contents[1] != 3 || len(r.RawOutputContents) != 0 {
			t.Fatal(r, err)
		}
	}
	if last := ms.get("root").last; seen != "/inference.GRPCInferenceService/ModelInfer" || last.Key != "u" || last.ID != "r-2" || last.Protocol != "grpc" {
		t.Fatalf("%q %+v", seen, last)
	}
}

func TestStream(t *testing.T) {
	conn, _ := dial(t, oip.Options{})
	s, err := pb.NewGRPCInferenceServiceClient(conn).ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "has shape", ""} {
		r := floats(4, 9)
		r.Id = "s"
		if i == 1 {
			r.Inputs[0].Shape[0] = 7
			r.Inputs[0].Shape[1] = 1
		}
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
		got, err := s.Recv()
		if err != nil || (got.ErrorMessage == "") != (want == "") || !strings.Contains(got.ErrorMessage, want) {
			t.Fatal(got, err)
		}
		if want == "" && (got.InferResponse.Id != "s" || got.InferResponse.Outputs[0].Contents.Fp64Contents[0] != 2) {
			t.Fatal(got)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestGRPCDescriptions(t *testing.T) {
	conn, ms := dial(t, oip.Options{Name: "test", Version: "7"})
	c, ctx := pb.NewGRPCInferenceServiceClient(conn), t.Context()
	if r, err := c.ServerLive(ctx, &pb.ServerLiveRequest{}); err != nil || !r.Live {
		t.Fatal(r, err)
	}
	if r, err := c.ServerMetadata(ctx, &pb.ServerMetadataRequest{}); err != nil || r.Name != "test" || r.Version != "7" || len(r.Extensions) != 5 {
		t.Fatal(r, err)
	}
	if r, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "root", Version: "2"}); err != nil || len(r.Versions) != 2 || r.Inputs[0].Datatype != "FP64" || r.Inputs[0].Shape[1] != 2 || r.Outputs[0].Name != "y" {
		t.Fatal(r, err)
	}
	if r, err := c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "everything"}); err != nil || r.Config.MaxBatchSize != 8 || r.Config.Input[4].DataType != pb.DataType_TYPE_STRING ||
		len(r.Config.Input[0].Dims) != 1 || r.Config.DynamicBatching.MaxQueueDelayMicroseconds != 1000 {
		t.Fatal(r, err)
	}
	for name, want := range map[string]bool{"root": true, "nothing": false} {
		if r, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: name}); err != nil || r.Ready != want {
			t.Fatal(name, r, err)
		}
	}
	if _, err := c.ModelInfer(ctx, floats(1, 1)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "root"}); err != nil || r.ModelStats[0].InferenceCount != 1 || r.ModelStats[0].InferenceStats.Success.Ns == 0 || r.ModelStats[0].BatchStats[0].BatchSize != 1 {
		t.Fatal(r, err)
	}
	if r, err := c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{}); err != nil || len(r.ModelStats) != len(ms.models) {
		t.Fatal(r, err)
	}
	if _, err := c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "shout"}); err != nil {
		t.Fatal(err)
	}
	all, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
	if err != nil || len(all.Models) != len(ms.models) || all.Models[3].State != "UNAVAILABLE" || all.Models[3].Reason != "unloaded" {
		t.Fatal(all, err)
	}
	if r, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: true}); err != nil || len(r.Models) != len(all.Models)-1 {
		t.Fatal(r, err)
	}
	if _, err := c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "shout"}); err != nil {
		t.Fatal(err)
	}
	h := healthpb.NewHealthClient(conn)
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{"": 1, "inference.GRPCInferenceService": 1, "root": 1} {
		if r, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err != nil || r.Status != want {
			t.Fatal(service, r, err)
		}
	}
	if _, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: "nothing"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	ms.mu.Lock()
	ms.down = true
	ms.mu.Unlock()
	if r, err := h.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatal(r, err)
	}
	if r, err := c.ServerReady(ctx, &pb.ServerReadyRequest{}); err != nil || r.Ready {
		t.Fatal(r, err)
	}
}

func TestBadGRPC(t *testing.T) {
	conn, _ := dial(t, oip.Options{MaxBody: 1 << 20})
	c := pb.NewGRPCInferenceServiceClient(conn)
	to := func(model string, change func(*pb.ModelInferRequest)) *pb.ModelInferRequest {
		r := floats(1, 2)
		if model != "root" {
			r.Inputs[0] = &pb.ModelInferRequest_InferInputTensor{Name: "x", Datatype: "FP32", Shape: []int64{1}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{1}}}
		}
		r.ModelName = model
		if change != nil {
			change(r)
		}
		return r
	}
	for name, x := range map[string]struct {
		r    *pb.ModelInferRequest
		code codes.Code
		says string
	}{
		"unknown model":           {to("nothing", nil), codes.NotFound, "no model"},
		"unknown version":         {to("root", func(r *pb.ModelInferRequest) { r.ModelVersion = "3" }), codes.NotFound, "no model"},
		"wrong shape":             {to("root", func(r *pb.ModelInferRequest) { r.Inputs[0].Shape = []int64{2, 1} }), codes.InvalidArgument, "has shape"},
		"raw and contents":        {to("root", func(r *pb.ModelInferRequest) { r.RawInputContents = [][]byte{make([]byte, 16)} }), codes.InvalidArgument, "raw contents"},
		"gRPC message over limit": {to("root", func(r *pb.ModelInferRequest) { r.RawInputContents = [][]byte{make([]byte, 2<<20)} }), codes.ResourceExhausted, "larger than max"},
		"a tensor over the limit": {to("root", func(r *pb.ModelInferRequest) { r.Inputs[0].Shape = []int64{1 << 40, 2} }), codes.ResourceExhausted, "more than"},
		"overload":                {to("shed", nil), codes.Unavailable, "too much"},
		"too often":               {to("limited", nil), codes.ResourceExhausted, "too often"},
		"a caller that is gone":   {to("broken", nil), codes.Canceled, "gone"},
		"a failure inside":        {to("secret", nil), codes.Internal, "internal error"},
		"a deadline": {to("hanging", func(r *pb.ModelInferRequest) {
			r.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1000}}}
		}), codes.DeadlineExceeded, "deadline"},
		"shared memory": {to("root", func(r *pb.ModelInferRequest) {
			r.Inputs[0].Parameters = map[string]*pb.InferParameter{"shared_memory_region": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "r"}}}
		}), codes.Unimplemented, "shared memory"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, compressor := range []string{"", gzip.Name, "deflate"} {
				_, err := c.ModelInfer(t.Context(), x.r, grpc.UseCompressor(compressor))
				st := status.Convert(err)
				if st.Code() != x.code || !strings.Contains(st.Message(), x.says) && compressor == "" || strings.Contains(st.Message(), "secret:") {
					t.Fatalf("%q: %v", compressor, err)
				}
				if name == "overload" {
					if d := st.Details(); len(d) != 1 || d[0].(*errdetails.RetryInfo).RetryDelay.AsDuration() != 1500*time.Millisecond {
						t.Fatal(d)
					}
				}
			}
		})
	}
	for name, err := range map[string]error{
		"metadata":   second(c.ModelMetadata(t.Context(), &pb.ModelMetadataRequest{Name: "nothing"})),
		"config":     second(c.ModelConfig(t.Context(), &pb.ModelConfigRequest{Name: "nothing"})),
		"statistics": second(c.ModelStatistics(t.Context(), &pb.ModelStatisticsRequest{Name: "nothing"})),
		"load":       second(c.RepositoryModelLoad(t.Context(), &pb.RepositoryModelLoadRequest{ModelName: "nothing"})),
		"unload":     second(c.RepositoryModelUnload(t.Context(), &pb.RepositoryModelUnloadRequest{ModelName: "nothing"})),
	} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	load := &pb.RepositoryModelLoadRequest{ModelName: "root", Parameters: map[string]*pb.ModelRepositoryParameter{"config": {}}}
	if _, err := c.RepositoryModelLoad(t.Context(), load); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ModelInfer(ctx, to("hanging", nil)); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

var _ api.Models = (*fakeModels)(nil)
