package op

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/stdlib/source/file"
)

// same is a bundle that predicts x, a double, as a float, and takes n.
func same() *bundle.Bundle {
	g := onnx.New("model")
	g.Output("prediction", g.Cast(g.Input("f.x", onnx.Double, -1, 1), onnx.Float), onnx.Float, -1, 1)
	return &bundle.Bundle{Model: g.Marshal(), Signature: bundle.Signature{
		Format: bundle.SignatureFormat, Model: "m", Task: kind.Task{Kind: kind.Regression},
		Inputs:  []bundle.Tensor{{Name: "f.x", DType: "double", Width: 1, Type: types.Float}},
		Outputs: []bundle.Tensor{{Name: "prediction", DType: "float", Width: 1}},
		Raw:     []lower.Field{{Name: "f.x", Column: "x", Type: types.Float, Nullable: true}, {Name: "f.n", Column: "n", Type: types.Int, Nullable: true}},
	}}
}

// TestPredictKeeps: what is kept of Parquet has the types that it had (times are in UTC, to
// the microsecond), and is JSON in JSON
// lines. An infinite prediction is null there, and a NaN of a whole number missing.
func TestPredictKeeps(t *testing.T) {
	ctx := context.Background()
	db := openDB(t)
	dir := t.TempDir()
	in := filepath.Join(dir, "in.parquet")
	err := db.WriteParquet(ctx, `SELECT * FROM (VALUES
		(1.5::DOUBLE, 7::DOUBLE, 9007199254740993::BIGINT, 5::SMALLINT, 18446744073709551615::UBIGINT, true, 0.1::FLOAT, 1.50::DECIMAL(9, 2), DATE '2024-01-31', TIMESTAMPTZ '2024-01-31 12:00:00.25+02', TIMESTAMP_NS '2024-01-31 12:00:00.000000001', 'a"b', [1, 2]),
		(1e300, 'nan', NULL, NULL, NULL, NULL, 'inf', NULL, NULL, NULL, NULL, NULL, NULL),
		(2, 7.5, 1, 1, 1, false, 1, 1, DATE '2024-01-31', NULL, NULL, '', [])) AS v(x, n, big, small, u, b, f, d, day, "at", ns, s, l)`, in)
	if err != nil {
		t.Fatal(err)
	}
	o := PredictOptions{Bundle: same(), Input: in, Keep: []string{"big", "small", "u", "b", "f", "d", "day", "at", "ns", "s", "l", "x", "n"}, Source: file.Source{}}
	for _, name := range []string{"out.jsonl", "out.parquet"} {
		o.Output = filepath.Join(dir, name)
		if rep, err := Predict(ctx, o); err != nil || rep.Rows != 2 || rep.Rejected != 1 {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "out.jsonl"))
	want := `{"row":1,"big":9007199254740993,"small":5,"u":18446744073709551615,"b":true,"f":0.1,"d":1.50,"day":"2024-01-31","at":"2024-01-31 10:00:00.25+00","ns":"2024-01-31 12:00:00.000000001","s":"a\"b","l":[1,2],"x":1.5,"n":7.0,"prediction":1.5}
{"row":2,"big":null,"small":null,"u":null,"b":null,"f":null,"d":null,"day":null,"at":null,"ns":null,"s":null,"l":null,"x":1e+300,"n":null,"prediction":null}
`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if rejects, err := os.ReadFile(filepath.Join(dir, "out.jsonl.rejects.jsonl")); err != nil || !strings.HasPrefix(string(rejects), `{"row":3,"reasons":"n: not a whole number"`) {
		t.Errorf("%s, %v", rejects, err)
	}
	out := filepath.Join(dir, "out.parquet")
	_, sqlTypes, err := db.Columns(ctx, "SELECT * FROM "+expr.ReadParquet(out))
	if err != nil || !slices.Equal(sqlTypes, []string{"BIGINT", "BIGINT", "SMALLINT", "UBIGINT", "BOOLEAN", "FLOAT", "DECIMAL(12,2)", "DATE", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR", "DOUBLE", "DOUBLE", "FLOAT"}) {
		t.Errorf("types %v, %v", sqlTypes, err)
	}
	var rows int
	if err := db.Row(ctx, "SELECT count(*) FROM "+expr.ReadParquet(out)+" AS o JOIN (SELECT *, row_number() OVER () AS row FROM "+expr.ReadParquet(in)+") AS i USING (row) WHERE (o.big, o.small, o.u, o.b, o.f, o.d, o.day, o.\"at\", o.s, o.x, o.n) IS NOT DISTINCT FROM (i.big, i.small, i.u, i.b, i.f, i.d, i.day, i.\"at\", i.s, i.x, i.n)", &rows); err != nil || rows != 2 {
		t.Errorf("%d rows are as they were, %v", rows, err)
	}
}

// TestPredictKeepsJSON: what is kept of JSON lines is the same JSON, and null where it
// is none to others.
func TestPredictKeepsJSON(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	text := `{"x":1,"n":2,"id":9007199254740993,"tags":["a",{"k":null}],"s":"1"}
{"x":NaN,"n":3.0,"id":true,"tags":{}}
`
	if err := os.WriteFile(in, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for ext, want := range map[string]string{
		".jsonl": `{"row":1,"id":9007199254740993,"tags":["a",{"k":null}],"s":"1","x":1,"prediction":1}
{"row":2,"id":true,"tags":{},"s":null,"x":null,"prediction":null}
`,
		".csv": `row,id,tags,s,x,prediction
1,9007199254740993,"[""a"",{""k"":null}]",1,1,1
2,true,{},,NaN,
`,
	} {
		out := filepath.Join(dir, "out"+ext)
		if _, err := Predict(context.Background(), PredictOptions{Bundle: same(), Input: in, Output: out, Keep: []string{"id", "tags", "s", "x"}, Source: file.Source{}}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(out); err != nil || string(got) != want {
			t.Errorf("%s, %v", got, err)
		}
	}
}
