package typed

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// TestRealModel asks a model in ONNX Runtime from many callers at once, whose
// buffers are used in turn: weight over 1000, halved for owls; 0.25 without eggs.
func TestRealModel(t *testing.T) {
	if _, err := ort.LibraryVersion(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	sig := birds(kind.Binary)
	g := onnx.New("model")
	in := map[string]onnx.Value{}
	for _, i := range sig.Inputs {
		dt := onnx.Double
		if i.DType == "string" {
			dt = onnx.String
		}
		in[i.Name] = g.Input(i.Name, dt, -1, 1)
	}
	factor := g.ML("LabelEncoder", onnx.Attrs{"keys_strings": []string{"owl"}, "values_floats": []float32{0.5}, "default_float": float32(1)}, in["bird.species"])
	share := g.Op("Mul", g.Cast(g.Op("Div", in["bird.weight"], g.Scalar(1000.0)), onnx.Float), factor)
	quarter := g.Cast(g.OpA("IsNaN", nil, in["bird.eggs"]), onnx.Bool)
	g.Output("probability", g.Op("Where", quarter, g.Cast(g.Scalar(0.25), onnx.Float), share), onnx.Float, -1, 1)
	session, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	a, m := setup(sig, nil)
	m.infer = func(_ context.Context, c api.Call) (api.Answer, error) {
		tensors := make([]ort.Tensor, len(c.Inputs))
		for i, v := range c.Inputs {
			tensors[i] = v.(ort.Tensor)
		}
		out, err := session.Run(tensors)
		if err != nil {
			return api.Answer{}, err
		}
		return api.Answer{Outputs: []ort.Value{out[0]}, Model: "churn", Version: "3"}, nil
	}
	c := dialProto(t, a, sig)
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			for i := range 25 {
				n := 1 + (caller*7+i)%20
				var rows, protos []string
				want := make([]float64, n)
				for k := range n {
					weight := float64((caller*31 + i*17 + k) % 1000)
					species, eggs := []string{"owl", "wren"}[k%2], []string{"null", "4"}[(k+i)%2]
					want[k] = float64(float32(weight / 1000))
					if species == "owl" {
						want[k] /= 2
					}
					if eggs == "null" {
						want[k] = 0.25
					}
					rows = append(rows, fmt.Sprintf(`{"bird.species":%q,"bird.weight":%v,"bird.eggs":%s}`, species, weight, eggs))
					protos = append(protos, fmt.Sprintf(`{"bird_species":%q,"bird_weight":%v,"bird_eggs":%s}`, species, weight, eggs))
				}
				r := decode(t, post(a, `{"rows":[`+strings.Join(rows, ",")+`]}`))
				if len(r.Predictions) != n {
					t.Errorf("%d predictions of %d: %s", len(r.Predictions), n, r.Error)
					return
				}
				out, err := c.predict(t, `{"rows":[`+strings.Join(protos, ",")+`]}`)
				if err != nil {
					t.Error(err)
					return
				}
				list := out.Get(out.Descriptor().Fields().ByName("predictions")).List()
				for k, p := range r.Predictions {
					x := list.Get(k).Message()
					over := x.Get(x.Descriptor().Fields().ByName("probability")).Float()
					got, _ := p["probability"].(float64)
					if math.Abs(got-want[k]) > 1e-6 || math.Abs(over-want[k]) > 1e-6 || p["decision"] != (want[k] >= 0.5) {
						t.Errorf("%s: %v over HTTP, %v over gRPC, not %v", rows[k], p, over, want[k])
					}
				}
			}
		})
	}
	wg.Wait()
}
