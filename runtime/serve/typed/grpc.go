package typed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"mlc.dev/mlc/runtime/serve/api"
)

// Register serves the service that Proto describes on s. The size of a message is
// the server's to limit, with grpc.MaxRecvMsgSize; Limits.Body holds as well.
func (a *API) Register(s *grpc.Server) {
	name := protoPackage(a.svc) + ".Predictor"
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Predict", Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			// The messages are known at run time only, and change with the model. Every
			// field of theirs is unknown to Empty, which keeps its bytes as they came.
			in := new(emptypb.Empty)
			if err := dec(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				return a.predictProto(ctx, req.(*emptypb.Empty))
			}
			if intercept == nil {
				return handle(ctx, in)
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + name + "/Predict"}, handle)
		}}},
		Metadata: strings.ReplaceAll(protoPackage(a.svc), ".", "/") + "/predictor.proto",
	}, a)
}

func (a *API) predictProto(ctx context.Context, in *emptypb.Empty) (any, error) {
	start := time.Now()
	md, _ := metadata.FromIncomingContext(ctx)
	header := func(name string) string {
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	id := header("x-request-id")
	if !isID(id) {
		id = newID()
	}
	out, version, err := a.answerProto(ctx, in.ProtoReflect().GetUnknown(), &id, header, start)
	h := metadata.Pairs("x-request-id", id)
	if version != "" {
		h.Set("x-model-version", version)
	}
	if e := grpc.SetHeader(ctx, h); e != nil {
		a.o.Log.Debug("the caller left before the answer", "cause", e)
	}
	if err != nil {
		return nil, err
	}
	res := new(emptypb.Empty)
	res.ProtoReflect().SetUnknown(out)
	return res, nil
}

// answerProto answers a PredictRequest; id becomes that of the request.
func (a *API) answerProto(ctx context.Context, msg []byte, id *string, header func(string) string, start time.Time) (out []byte, version string, err error) {
	c := a.pool.Get().(*call)
	defer a.release(c)
	refuse := func(err *api.Error) ([]byte, string, error) {
		a.models.Refused("grpc", err.Kind)
		return nil, "", a.status(*id, err)
	}
	if int64(len(msg)) > a.maxBody() {
		return refuse(api.Errorf(api.TooLarge, "the message is larger than %d bytes", a.maxBody()))
	}
	if d := a.svc.Deadline.Std(); d > 0 {
		limit := api.Within(ctx, d)
		defer limit.End()
		ctx = limit
	}
	m, f, fail := a.serving()
	if fail == nil {
		fail = f.protoErr
	}
	if fail != nil {
		return refuse(fail)
	}
	c.reset(f, pathProto, maxRows(a.svc))
	fail = c.readProto(msg)
	if c.id != "" {
		*id = c.id
	}
	if fail != nil {
		return refuse(fail)
	}
	if c.any() {
		a.models.Refused("grpc", api.Invalid)
		return nil, "", c.status()
	}
	ans, res, fail := a.infer(ctx, m, c, *id, "grpc", header)
	if fail != nil {
		return nil, "", a.status(*id, fail)
	}
	c.out, c.body = f.appendProto(c.out[:0], c.body, *id, &ans, res, time.Since(start))
	return slices.Clone(c.out), ans.Version, nil
}

// status is err as gRPC tells it; what caused an internal one is logged.
func (a *API) status(id string, err *api.Error) error {
	if err.Kind == api.Internal {
		a.o.Log.Error("no answer", "id", id, "model", a.model, "error", err.Text, "cause", err.Err)
	}
	return err.GRPCStatus().Err()
}

// status is the faults as gRPC tells them: google.rpc.BadRequest in the details.
// Those travel in a header, of which some clients take 8 KiB altogether, so not all
// faults may be there; the message counts the others.
func (f *faults) status() error {
	const most = 4 << 10
	size := 0
	bad := &errdetails.BadRequest{}
	for _, x := range f.told {
		v := &errdetails.BadRequest_FieldViolation{Field: x.Path, Description: x.What, Reason: strings.ToUpper(x.Code)}
		if x.Mend != "" {
			v.Description += "; " + x.Mend
		}
		if size += len(v.Field) + len(v.Description) + len(v.Reason) + 12; size > most && len(bad.FieldViolations) > 0 {
			break
		}
		bad.FieldViolations = append(bad.FieldViolations, v)
	}
	text := f.text()
	if n := len(f.told) + f.more - len(bad.FieldViolations); n > 0 {
		text += fmt.Sprintf(" (%d of them are not told)", n)
	}
	s := status.New(codes.InvalidArgument, text)
	if with, err := s.WithDetails(bad); err == nil {
		s = with
	}
	return s.Err()
}
