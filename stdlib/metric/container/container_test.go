package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// measure runs a shell command as a metric.
func measure(t *testing.T, command string) (float64, error) {
	t.Helper()
	dir := t.TempDir()
	rows := filepath.Join(dir, "judged.parquet")
	if err := os.WriteFile(rows, []byte("rows"), 0o644); err != nil {
		t.Fatal(err)
	}
	args, err := json.Marshal(map[string]any{"kind": "container", "better": "down", "command": []string{"sh", "-c", command}, "params": map[string]int{"cost": 5}})
	if err != nil {
		t.Fatal(err)
	}
	if (Metric{}).Better(args) != kind.Down {
		t.Error("down is not better")
	}
	return Metric{}.Measure(t.Context(), kind.MeasureJob{Task: kind.Task{Kind: kind.Binary}, Args: args, Rows: rows, Work: kind.Work{Dir: dir}})
}

// TestMeasure: the command sees the rows and its params, and its value comes back.
func TestMeasure(t *testing.T) {
	v, err := measure(t, `set -e; test -s "$MLC_IN/rows.parquet"; grep -q '"cost": *5' "$MLC_IN/schema.json"; echo '{"value": 1.5e2, "note": "free"}' > "$MLC_OUT/metric.json"`)
	if err != nil || v != 150 {
		t.Errorf("%v %v", v, err)
	}
}

// TestBadMetric: what is not one number is a fault that says so.
func TestBadMetric(t *testing.T) {
	for _, c := range []struct {
		name, command string
		code          diag.Code
		what          string
	}{
		{"nothing", "true", diag.BadOutput, "left no metric.json"},
		{"no JSON", `echo 0.5 } > "$MLC_OUT/metric.json"`, diag.BadOutput, "metric.json: invalid character"},
		{"NaN", `echo '{"value": NaN}' > "$MLC_OUT/metric.json"`, diag.BadOutput, "metric.json: invalid character 'N'"},
		{"huge", `echo '{"value": 1e999}' > "$MLC_OUT/metric.json"`, diag.BadOutput, "metric.json: json: cannot unmarshal number 1e999"},
		{"text", `echo '{"value": "0.5"}' > "$MLC_OUT/metric.json"`, diag.BadOutput, "metric.json: json: cannot unmarshal string"},
		{"no value", `echo '{"score": 0.5}' > "$MLC_OUT/metric.json"`, diag.BadOutput, `metric.json has no number "value"`},
		{"status", "exit 3", diag.CommandFailed, "ended with exit status 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := measure(t, c.command)
			var faults kind.Faults
			if !errors.As(err, &faults) || faults[0].Code != c.code || faults[0].Field != "command" || !strings.Contains(faults[0].What, c.what) {
				t.Errorf("got %v, want %s: %s", err, c.code, c.what)
			}
		})
	}
}
