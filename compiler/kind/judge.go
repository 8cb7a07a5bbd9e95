package kind

import (
	"encoding/json"
	"strings"
)

// Decision says which threshold of a probability decides: one of the kinds below.
type Decision struct {
	Kind string `json:"kind"`
	// FalsePositive and FalseNegative are the costs of an error of each sort.
	FalsePositive float64 `json:"false_positive,omitempty"`
	FalseNegative float64 `json:"false_negative,omitempty"`
	// AtLeast is the precision or recall to reach.
	AtLeast float64 `json:"at_least,omitempty"`
	// Value is the threshold itself.
	Value float64 `json:"value,omitempty"`
}

// The decision kinds: the least cost; the greatest recall with a precision; the
// greatest precision with a recall; and a threshold as it is.
const (
	DecideCost      = "cost"
	DecidePrecision = "precision"
	DecideRecall    = "recall"
	DecideThreshold = "threshold"
)

// Chosen reports whether the threshold is chosen on the validation rows.
func (d Decision) Chosen() bool { return d.Kind != DecideThreshold }

// Fairness is a demand on how a model's decisions differ between groups.
type Fairness struct {
	By     string   `json:"by"` // a column
	Metric string   `json:"metric"`
	Min    *float64 `json:"min,omitempty"`
	Max    *float64 `json:"max,omitempty"`
	// Confidence that the demand is met, one-sided.
	Confidence float64 `json:"confidence"`
	// Least is the fewest rows of a group that tell anything of it.
	Least int `json:"min_rows"`
}

// FairnessMetrics are what Fairness can ask of: for the rate of rows decided true
// (selection_rate), of those among the true (tpr) and among the false (fpr), the
// greatest difference between two groups and the least ratio (Hardt, Price & Srebro
// 2016; the names are Fairlearn's).
var FairnessMetrics = []string{"selection_rate_difference", "selection_rate_ratio", "tpr_difference", "tpr_ratio", "fpr_difference", "fpr_ratio"}

// FairnessBetter tells the good direction of a fairness metric.
func FairnessBetter(metric string) Direction {
	if strings.HasSuffix(metric, "_ratio") {
		return Up
	}
	return Down
}

// Calibrator makes probabilities honest: of the rows that get 0.3, three of ten come
// true.
type Calibrator interface {
	Kind
	// Fit learns from probabilities p of the validation rows, and whether each came
	// true. It fails where they hold one class only.
	Fit(args json.RawMessage, y []float64, p []float32) (Calibration, error)
}

// Calibration is a fitted Calibrator.
type Calibration struct {
	// Model is ONNX: input P, float [N, 1]; output Y, float [N, 1]; both probabilities.
	Model []byte
	// Apply is the same in Go.
	Apply func(p float32) float32
	// Report tells what was learned.
	Report map[string]any
}
