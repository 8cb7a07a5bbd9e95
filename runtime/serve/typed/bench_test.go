package typed

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/serve/api"
)

// fullRow has all ten features.
const fullRow = `{"bird.species":"wren","bird.weight":9.53,"bird.eggs":4,"bird.ringed":true,"bird.note":"near the pond","nest.seen":"2024-05-01T06:30:00Z","nest.level":2,"nest.note":null,"nest.height":1.85,"nest.count":17}`

func body(rows int) []byte {
	return []byte(`{"rows":[` + strings.TrimSuffix(strings.Repeat(fullRow+",", rows), ",") + `]}`)
}

func benchmarkCodec(b *testing.B, rows int) {
	svc := testService()
	f := newForm(svc, birds(kind.Binary))
	in, a := body(rows), answer(f.sig, rows)
	var batch batch
	var out []byte
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		batch.reset(f, pathRows, rows)
		if wrong, err := batch.readJSON(in); wrong != nil || err != nil || batch.any() {
			b.Fatal(wrong, err, batch.told)
		}
		r, bad := f.results(&a, rows, svc.Threshold)
		if bad != nil {
			b.Fatal(bad)
		}
		out = f.appendAnswer(out[:0], "0123456789abcdef", &a, r, time.Millisecond)
	}
}

// BenchmarkDecodeEncode reads a request into the batch's columns and writes its
// answer; BenchmarkTensors makes of the columns what a model takes.
func BenchmarkDecodeEncode1(b *testing.B)     { benchmarkCodec(b, 1) }
func BenchmarkDecodeEncode10000(b *testing.B) { benchmarkCodec(b, 10_000) }

func benchmarkTensors(b *testing.B, rows int) {
	f := newForm(testService(), birds(kind.Binary))
	var batch batch
	batch.reset(f, pathRows, rows)
	if wrong, err := batch.readJSON(body(rows)); wrong != nil || err != nil || batch.any() {
		b.Fatal(wrong, err, batch.told)
	}
	b.ReportAllocs()
	for b.Loop() {
		batch.tensors()
	}
}

func BenchmarkTensors1(b *testing.B)     { benchmarkTensors(b, 1) }
func BenchmarkTensors10000(b *testing.B) { benchmarkTensors(b, 10_000) }

// BenchmarkHandler is a whole request, but for the network and the model.
func BenchmarkHandler(b *testing.B) {
	sig := birds(kind.Binary)
	a, m := setup(sig, nil)
	fixed := answer(sig, 1)
	m.infer = func(context.Context, api.Call) (api.Answer, error) { return fixed, nil }
	h, in := a.Handler(), string(body(1))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/predict", strings.NewReader(in)))
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// TestReadingAndWritingARowDoesNotAllocate, so that what a request costs is its
// tensors: the columns, and two headers an input.
func TestReadingAndWritingARowDoesNotAllocate(t *testing.T) {
	svc := testService()
	f := newForm(svc, birds(kind.Binary))
	in, a := body(1), answer(f.sig, 1)
	var b batch
	var out []byte
	codec := testing.AllocsPerRun(100, func() {
		b.reset(f, pathRows, 1)
		if wrong, err := b.readJSON(in); wrong != nil || err != nil || b.any() {
			t.Fatal(wrong, err, b.told)
		}
		r, _ := f.results(&a, 1, svc.Threshold)
		out = f.appendAnswer(out[:0], "x", &a, r, time.Millisecond)
	})
	if codec != 0 {
		t.Errorf("%v allocations", codec)
	}
	if n := testing.AllocsPerRun(100, func() { b.tensors() }); n > float64(5+2*len(f.inputs)) {
		t.Errorf("%v allocations for %d tensors", n, len(f.inputs))
	}
}
