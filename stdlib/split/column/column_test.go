package column

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
)

func TestAssign(t *testing.T) {
	rows := []string{"fit", "judge", "stop", "other", types.NullString}
	for _, c := range []struct {
		args string
		want []kind.Part
	}{
		{`{"column":"c","test":["judge"]}`, []kind.Part{kind.Train, kind.Test, kind.Train, kind.Train, kind.Train}},
		{`{"column":"c","test":["judge","other"],"validation":["stop"]}`, []kind.Part{kind.Train, kind.Test, kind.Valid, kind.Test, kind.Train}},
		{`{"column":"c","train":["fit"],"test":["judge"]}`, []kind.Part{kind.Train, kind.Test, kind.Purged, kind.Purged, kind.Purged}},
	} {
		got, err := Split{}.Assign(t.Context(), kind.SplitJob{Args: json.RawMessage(c.args), Column: rows, Group: []string{"0", "1", "2", "3", "4"}})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", c.args, got, err, c.want)
		}
	}
}

func TestFaults(t *testing.T) {
	twice := json.RawMessage(`{"column":"c","test":["a"],"train":["b","a"]}`)
	if f := (Split{}).Check(twice, kind.SplitInfo{}); len(f) != 1 || f[0].Code != diag.BadArgs || !strings.Contains(f[0].What, `"a"`) {
		t.Errorf("%v", f)
	}
	assign := func(args string, job kind.SplitJob) kind.Fault {
		job.Args = json.RawMessage(args)
		_, err := Split{}.Assign(t.Context(), job)
		var f kind.Faults
		if !errors.As(err, &f) {
			t.Fatalf("%s: %v", args, err)
		}
		return f[0]
	}
	apart := []string{"0", "1"}
	if f := assign(`{"column":"c","test":["tset"]}`, kind.SplitJob{Column: []string{"train", "test"}, Group: apart}); f.Field != "test" || f.Code != diag.EmptySplit || f.What != `no row has "tset" in column "c"; did you mean "test"?` || f.Mend != "its values are test, train" {
		t.Errorf("%+v", f)
	}
	if f := assign(`{"column":"c","test":["test"]}`, kind.SplitJob{Column: []string{"train", "test"}, Group: []string{"e", "e"}}); f.Field != "column" || f.Code != diag.FittedLeak {
		t.Errorf("an entity in two parts: %+v", f)
	}
	if f := assign(`{"column":"c","test":["test"]}`, kind.SplitJob{Column: []string{"train", "test"}, Group: apart, Time: []int64{9, 3}, Known: []int64{9, 3}}); f.Code != diag.FittedLeak {
		t.Errorf("training rows after the test: %+v", f)
	}
}
