// Package oiptest is a client of the Open Inference Protocol for tests: it sends a
// model's values over HTTP in JSON, over HTTP in binary, or over gRPC, and gives
// what comes back.
package oiptest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/internal/codec"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// Model is a served model and what it takes and gives.
type Model struct {
	Name, Version   string
	Inputs, Outputs []ort.Info
}

// Client sends values in the order of Model.Inputs and returns those that came back
// in the order of Model.Outputs; a nil value is one that is not there.
type Client func(ctx context.Context, m Model, values []ort.Value) ([]ort.Value, error)

// JSON is a client that sends JSON to a server's URL. What JSON cannot carry goes in
// binary beside it, as the protocol allows: FP16 and BF16 both ways, and in requests
// NaN, infinities and texts that are not UTF-8. An output that is a sequence or an
// optional of FP16 or BF16 cannot be had.
func JSON(server string) Client { return over(server, codec.PlainJSON) }

// Binary is a client that sends all tensors to a server's URL in binary.
func Binary(server string) Client { return over(server, func(any) bool { return false }) }

// most is how many elements a tensor of an answer may have.
const most = 1 << 30

// over sends in JSON what plain says.
func over(server string, plain func(data any) bool) Client {
	return func(ctx context.Context, m Model, values []ort.Value) ([]ort.Value, error) {
		var in, wanted []codec.Out
		for i, v := range values {
			ts, err := codec.Flatten(nil, m.Inputs[i].Name, v)
			if err != nil {
				return nil, err
			}
			binary := false
			for _, t := range ts {
				binary = binary || !plain(t.Data)
			}
			in = append(in, codec.Out{Name: m.Inputs[i].Name, Value: v, Binary: binary})
		}
		for _, o := range m.Outputs {
			t := codec.FromONNX(o.Type)
			wanted = append(wanted, codec.Out{Name: o.Name, Binary: !plain([]bool{}) || t != codec.None && !t.InJSON()})
		}
		body, text, binary, err := codec.AppendRequest(nil, "oiptest", in, wanted)
		if err != nil {
			return nil, err
		}
		at := server + "/v2/models/" + url.PathEscape(m.Name)
		if m.Version != "" {
			at += "/versions/" + url.PathEscape(m.Version)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at+"/infer", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		if binary {
			req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(text))
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			var e struct{ Error string }
			if err := json.Unmarshal(body, &e); err != nil {
				return nil, fmt.Errorf("status %d: %q", resp.StatusCode, body)
			}
			return nil, api.Errorf(api.Kind(resp.StatusCode), "%s", e.Error)
		}
		text = len(body)
		if h := resp.Header.Get("Inference-Header-Content-Length"); h != "" {
			if text, err = strconv.Atoi(h); err != nil || text < 0 || text > len(body) {
				return nil, fmt.Errorf("a JSON text of %s bytes in a body of %d", h, len(body))
			}
		}
		r, err := codec.ParseResponse(body[:text], body[text:], &codec.Model{Outputs: m.Outputs, MaxElements: most})
		if err != nil {
			return nil, err
		}
		return r.Outputs, check("oiptest", r.ID)
	}
}

// GRPC is a client that sends raw contents.
func GRPC(conn grpc.ClientConnInterface) Client { return overGRPC(conn, true) }

// GRPCContents is a client that sends the contents of each tensor in the field of
// its type, which FP16 and BF16 have none of.
func GRPCContents(conn grpc.ClientConnInterface) Client { return overGRPC(conn, false) }

func overGRPC(conn grpc.ClientConnInterface, raw bool) Client {
	return func(ctx context.Context, m Model, values []ort.Value) ([]ort.Value, error) {
		var in []codec.Out
		for i, v := range values {
			in = append(in, codec.Out{Name: m.Inputs[i].Name, Value: v})
		}
		req, err := codec.NewRequest(m.Name, m.Version, "oiptest", in, nil, raw)
		if err != nil {
			return nil, err
		}
		resp, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, req, grpc.MaxCallRecvMsgSize(most))
		if err != nil {
			return nil, err
		}
		r, err := codec.ReadResponse(resp, &codec.Model{Outputs: m.Outputs, MaxElements: most})
		if err != nil {
			return nil, err
		}
		if len(req.RawInputContents) > 0 && len(resp.Outputs) > 0 && !r.Raw {
			return nil, fmt.Errorf("a raw request is not answered raw")
		}
		return r.Outputs, check("oiptest", r.ID)
	}
}

func check(want, id string) error {
	if id != want {
		return fmt.Errorf("the answer's id is %q, not %q", id, want)
	}
	return nil
}
