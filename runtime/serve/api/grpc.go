package api

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

var codeOf = map[Kind]codes.Code{
	BadRequest: codes.InvalidArgument, Invalid: codes.InvalidArgument, Unauthorized: codes.Unauthenticated, NotFound: codes.NotFound,
	TooLarge: codes.ResourceExhausted, Overloaded: codes.ResourceExhausted, Cancelled: codes.Canceled, Internal: codes.Internal,
	Unsupported: codes.Unimplemented, Unavailable: codes.Unavailable, Timeout: codes.DeadlineExceeded,
}

// GRPCStatus is the error as gRPC has it, which a handler may return as it is.
func (e *Error) GRPCStatus() *status.Status {
	code, ok := codeOf[e.Kind]
	if !ok {
		code = codes.Internal
	}
	s := status.New(code, e.Text)
	if e.RetryAfter > 0 {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); err == nil {
			s = with
		}
	}
	return s
}
