package evaluate

// Report is all that the HTML report shows of a model's test rows.
type Report struct {
	Format string `json:"format"`
	Rows   int    `json:"rows"`
	// Classes are those of the confusion matrix, or the labels of a multilabel.
	Classes []string `json:"classes,omitempty"`
	// Confusion counts rows by what they are and what they are decided to be, for at
	// most maxConfusion classes.
	Confusion [][]int `json:"confusion,omitempty"`
	Threshold float64 `json:"threshold,omitempty"`
	// Curves are of the probability of true, or of each class against the rest, for at
	// most maxCurves classes.
	Curves []Curves `json:"curves,omitempty"`
	// Residuals are of numbers: Residuals.Actual − Predicted.
	Residuals *Residuals `json:"residuals,omitempty"`
	// Slices are those that the spec declares, Worst those found.
	Slices []Slice `json:"slices,omitempty"`
	Worst  []Slice `json:"worst,omitempty"`
	// Importance is by permutation, the greatest first; Metric is what it is of.
	Metric     string       `json:"metric"`
	Importance []Importance `json:"importance"`
	// Dependence is partial dependence on the most important features.
	Dependence []Dependence `json:"dependence"`
}

// ReportFormat is the version of the report's form.
const ReportFormat = "mlc.evaluation.v1"

// Point is a place of a curve.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Curves are those of one score against whether it came true.
type Curves struct {
	Class string  `json:"class,omitempty"`
	ROC   []Point `json:"roc"` // true positive rate by false positive rate
	PR    []Point `json:"pr"`  // precision by recall
	// Gain is the share of the true that the share of rows with the highest scores
	// holds.
	Gain        []Point `json:"gain"`
	Reliability []Bin   `json:"reliability"`
}

// Bin is the rows of which the score lies between From and To: their mean score and
// the share that came true.
type Bin struct {
	From float64 `json:"from"`
	To   float64 `json:"to"`
	Rows int     `json:"rows"`
	Mean float64 `json:"mean"`
	Rate float64 `json:"rate"`
}

// Residuals of a number. Of quantiles, the middle one is taken.
type Residuals struct {
	// Sample are predicted (X) and actual (Y) values of some rows.
	Sample []Point `json:"sample"`
	// Histogram of actual − predicted; Mean and Rate are not set.
	Histogram []Bin `json:"histogram"`
	// Coverage is, of a quantile task, the share of rows at or below each quantile.
	Coverage []Point `json:"coverage,omitempty"`
}

// Slice is a part of the rows with the metrics there.
type Slice struct {
	// Name is its condition, as in "contract = Month-to-month and tenure < 6".
	Name string `json:"name"`
	By   string `json:"by,omitempty"` // what the spec calls its column
	Rows int    `json:"rows"`
	// Metrics and Errors (standard errors) by the metric's name.
	Metrics map[string]float64 `json:"metrics,omitempty"`
	Errors  map[string]float64 `json:"errors,omitempty"`
	// Loss is the mean loss there, Rest that of the other rows; Effect is their
	// difference in standard deviations. They are of Worst alone.
	Loss   float64 `json:"loss,omitempty"`
	Rest   float64 `json:"rest,omitempty"`
	Effect float64 `json:"effect,omitempty"`
}

// Importance is how much worse the metric is when a feature's values are shuffled.
type Importance struct {
	Feature string  `json:"feature"`
	Drop    float64 `json:"drop"`  // the mean over the shuffles, in the metric's good direction
	Error   float64 `json:"error"` // its standard deviation over the shuffles
}

// Dependence is the mean prediction when a feature has a value in all rows.
type Dependence struct {
	Feature string `json:"feature"`
	// Values are numbers, or texts with Labels.
	Values []float64 `json:"values,omitempty"`
	Labels []string  `json:"labels,omitempty"`
	// Output names what is predicted (a class, a quantile; "" where there is one), and
	// Means are its mean for each value.
	Output string    `json:"output,omitempty"`
	Means  []float64 `json:"means"`
}
