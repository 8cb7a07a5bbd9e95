package lower_test

import (
	"fmt"
	"testing"

	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/stdlib"
)

func TestCurrent(t *testing.T) {
	kinds := stdlib.Kinds()
	roc, _ := kinds.Metrics.Get("roc_auc")
	same, ok := lower.Current(lower.OpPackage, "0", kinds)
	if !ok || same == "0" {
		t.Errorf("%q %v", same, ok)
	}
	now, ok := lower.Current(lower.OpEvaluate, "0 roc_auc.0", kinds)
	op, _ := lower.Current(lower.OpEvaluate, "1", kinds)
	if want := op + " roc_auc." + fmt.Sprint(roc.Version()); !ok || now != want {
		t.Errorf("%q, not %q", now, want)
	}
	again, ok := lower.Current(lower.OpEvaluate, now, kinds)
	if !ok || again != now {
		t.Errorf("%q becomes %q", now, again)
	}
	for _, c := range [][2]string{{"model.dream", "1"}, {lower.OpTrain, "1 dream.1"}, {lower.OpValidate, "1 roc_auc.1"}, {lower.OpTrain, ""}} {
		if now, ok := lower.Current(c[0], c[1], kinds); ok {
			t.Errorf("%s of version %q is %q", c[0], c[1], now)
		}
	}
}
