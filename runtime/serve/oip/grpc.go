package oip

import (
	"compress/zlib"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // registers the compressor
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/internal/codec"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// ServerOptions are those that a gRPC server needs for Register: requests may be as
// large as MaxBody, above grpc's own 4 MiB.
func ServerOptions(o Options) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(int(o.filled().MaxBody))}
}

// Register adds the protocol and grpc.health.v1 to a gRPC server that was made with
// ServerOptions. It is called before the server serves.
//
// Messages may be compressed with gzip or deflate. An answer is raw when its request
// was, and when an output is FP16 or BF16; else it is in contents. Failures are
// INVALID_ARGUMENT for what a caller got wrong, NOT_FOUND, RESOURCE_EXHAUSTED and
// UNAVAILABLE with a RetryInfo, UNIMPLEMENTED for what is not supported,
// DEADLINE_EXCEEDED, CANCELLED, UNAUTHENTICATED and INTERNAL.
func Register(g *grpc.Server, models api.Models, o Options) {
	registerDeflate()
	s := &grpcServer{server: server{models, o.filled()}}
	desc := pb.GRPCInferenceService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		if desc.Methods[i].MethodName == "ModelInfer" {
			desc.Methods[i].Handler = inferWire
		}
	}
	desc.Streams = slices.Clone(desc.Streams)
	for i := range desc.Streams {
		if desc.Streams[i].StreamName == "ModelStreamInfer" {
			desc.Streams[i].Handler = streamWire
		}
	}
	g.RegisterService(&desc, s)
	healthpb.RegisterHealthServer(g, &health{server: g, models: models})
}

// Messages to infer are received as empty ones, which keep every field as it was on
// the wire, among those that they do not know: the codec decodes them.

func inferWire(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	in := new(emptypb.Empty)
	if err := dec(in); err != nil {
		return nil, err
	}
	s := srv.(*grpcServer)
	if intercept == nil {
		return s.inferWire(ctx, in)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: pb.GRPCInferenceService_ModelInfer_FullMethodName}
	return intercept(ctx, in, info, func(ctx context.Context, req any) (any, error) { return s.inferWire(ctx, req.(*emptypb.Empty)) })
}

func streamWire(srv any, stream grpc.ServerStream) error { return srv.(*grpcServer).stream(stream) }

type grpcServer struct {
	pb.UnimplementedGRPCInferenceServiceServer
	server
}

func (s *grpcServer) inferWire(ctx context.Context, in *emptypb.Empty) (*pb.ModelInferResponse, error) {
	r, _, err := s.answer(ctx, in)
	return r, rpc(err)
}

// answer gives the request's id even where it fails, as far as it is known.
func (s *grpcServer) answer(ctx context.Context, in *emptypb.Empty) (*pb.ModelInferResponse, string, error) {
	wire := in.ProtoReflect().GetUnknown()
	name, version, err := codec.Target(wire)
	if err != nil {
		return nil, "", s.refused(err)
	}
	m, err := s.models.Model(name, version)
	if err != nil {
		return nil, "", s.refused(err)
	}
	shape := s.shape(m)
	req, err := codec.ParseWire(wire, shape)
	if err != nil {
		return nil, "", s.refused(err)
	}
	key, id := "", ""
	if s.o.Key != "" {
		if v := metadata.ValueFromIncomingContext(ctx, s.o.Key); len(v) > 0 {
			key = v[0]
		}
	}
	if ids := metadata.ValueFromIncomingContext(ctx, "x-request-id"); len(ids) > 0 && len(ids[0]) <= 128 {
		id = ids[0]
	}
	head, outs, err := s.infer(ctx, m, shape, req, "grpc", key, id)
	if err != nil {
		return nil, req.ID, err
	}
	r, err := codec.NewResponse(head, outs, req.Raw)
	return r, req.ID, err
}

// refused tells of a request that no model was asked for, and is err.
func (s *grpcServer) refused(err error) error {
	s.models.Refused("grpc", api.From(err).Kind)
	return err
}

func (s *grpcServer) stream(stream grpc.ServerStream) error {
	for {
		in := new(emptypb.Empty)
		if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, id, err := s.answer(stream.Context(), in)
		if stream.Context().Err() != nil {
			return rpc(stream.Context().Err())
		}
		out := &pb.ModelStreamInferResponse{InferResponse: r}
		if err != nil {
			out.ErrorMessage = api.From(err).Text
			out.InferResponse = &pb.ModelInferResponse{Id: id}
		}
		if err := stream.SendMsg(out); err != nil {
			return err
		}
	}
}

func (s *grpcServer) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (s *grpcServer) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.models.Ready()}, nil
}

// ModelReady is false for a model that there is not, as Triton has it.
func (s *grpcServer) ModelReady(_ context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	_, err := s.models.Model(r.Name, r.Version)
	return &pb.ModelReadyResponse{Ready: err == nil}, nil
}

func (s *grpcServer) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: s.o.Name, Version: s.o.Version, Extensions: extensions}, nil
}

func (s *grpcServer) ModelMetadata(_ context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := s.models.Model(r.Name, r.Version)
	if err != nil {
		return nil, rpc(err)
	}
	return s.metadata(m).proto(), nil
}

func (s *grpcServer) ModelConfig(_ context.Context, r *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m, err := s.models.Model(r.Name, r.Version)
	if err != nil {
		return nil, rpc(err)
	}
	return &pb.ModelConfigResponse{Config: config(m).proto()}, nil
}

func (s *grpcServer) ModelStatistics(_ context.Context, r *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	ms, err := s.found(r.Name, r.Version)
	if err != nil {
		return nil, rpc(err)
	}
	out := &pb.ModelStatisticsResponse{}
	for _, m := range ms {
		out.ModelStats = append(out.ModelStats, stats(m).proto())
	}
	return out, nil
}

func (s *grpcServer) RepositoryIndex(_ context.Context, r *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	out := &pb.RepositoryIndexResponse{}
	for _, e := range s.index(r.Ready) {
		out.Models = append(out.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: e.State, Reason: e.Reason})
	}
	return out, nil
}

func (s *grpcServer) RepositoryModelLoad(ctx context.Context, r *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	if len(r.Parameters) > 0 {
		return nil, rpc(api.Errorf(api.Unsupported, "a model is loaded as it is, without parameters"))
	}
	return &pb.RepositoryModelLoadResponse{}, rpc(s.models.Load(ctx, r.ModelName))
}

func (s *grpcServer) RepositoryModelUnload(ctx context.Context, r *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	return &pb.RepositoryModelUnloadResponse{}, rpc(s.models.Unload(ctx, r.ModelName))
}

// rpc is err as a gRPC status.
func rpc(err error) error {
	if err == nil {
		return nil
	}
	return api.From(err).GRPCStatus().Err()
}

// health is grpc.health.v1: of the server for "" and the names of its services, else
// of a model. Watch is not offered: probes call Check, and clients take a server
// without Watch for healthy.
type health struct {
	healthpb.UnimplementedHealthServer
	server *grpc.Server
	models api.Models
}

func (h *health) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	ready := h.models.Ready()
	if _, is := h.server.GetServiceInfo()[r.Service]; !is && r.Service != "" {
		_, err := h.models.Model(r.Service, "")
		if err != nil && api.From(err).Kind == api.NotFound {
			return nil, rpc(err)
		}
		ready = err == nil
	}
	out := &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
	if ready {
		out.Status = healthpb.HealthCheckResponse_SERVING
	}
	return out, nil
}

// deflate is zlib's format, which Triton's clients call by this name.
type deflate struct{}

var registerDeflate = sync.OnceFunc(func() { encoding.RegisterCompressor(deflate{}) })

func (deflate) Name() string { return "deflate" }

func (deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	z := compressors["deflate"].pool.Get().(resetWriter)
	z.Reset(w)
	return &pooledWriter{z}, nil
}

// Decompress leaves the limit to grpc, which stops to read at MaxRecvMsgSize.
func (deflate) Decompress(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }

type pooledWriter struct{ resetWriter }

// Close ends the stream. It is called once.
func (w *pooledWriter) Close() error {
	err := w.resetWriter.Close()
	compressors["deflate"].pool.Put(w.resetWriter)
	return err
}
