// Package stdlib is what users choose by `kind` and by name: each kind in a
// folder of its own, and the one table of them here.
package stdlib

import (
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/encoder/clip"
	"mlc.dev/mlc/stdlib/encoder/frequency"
	"mlc.dev/mlc/stdlib/encoder/impute"
	"mlc.dev/mlc/stdlib/encoder/log1p"
	"mlc.dev/mlc/stdlib/encoder/minmax"
	"mlc.dev/mlc/stdlib/encoder/onehot"
	"mlc.dev/mlc/stdlib/encoder/ordinal"
	"mlc.dev/mlc/stdlib/encoder/passthrough"
	"mlc.dev/mlc/stdlib/encoder/power"
	"mlc.dev/mlc/stdlib/encoder/quantilebins"
	"mlc.dev/mlc/stdlib/encoder/robust"
	"mlc.dev/mlc/stdlib/encoder/standardize"
	"mlc.dev/mlc/stdlib/metric"
	containermetric "mlc.dev/mlc/stdlib/metric/container"
	containersource "mlc.dev/mlc/stdlib/source/container"
	"mlc.dev/mlc/stdlib/source/file"
	"mlc.dev/mlc/stdlib/split/column"
	containersplit "mlc.dev/mlc/stdlib/split/container"
	"mlc.dev/mlc/stdlib/split/files"
	"mlc.dev/mlc/stdlib/split/random"
	"mlc.dev/mlc/stdlib/split/stratified"
	"mlc.dev/mlc/stdlib/split/time"
	"mlc.dev/mlc/stdlib/trainer/container"
	"mlc.dev/mlc/stdlib/trainer/gbdt"
	"mlc.dev/mlc/stdlib/trainer/linear"
	"mlc.dev/mlc/stdlib/trainer/onnx"
	"mlc.dev/mlc/stdlib/trainer/prior"
	"mlc.dev/mlc/stdlib/trainer/rule"
)

// Kinds returns the table.
func Kinds() kind.Kinds {
	return kind.Kinds{
		Sources: kind.Of[kind.Source](
			containersource.Source{},
			file.Source{},
		),
		Encoders: kind.Of[kind.Encoder](
			clip.Encoder{},
			frequency.Encoder{},
			impute.Encoder{},
			log1p.Encoder{},
			minmax.Encoder{},
			onehot.Encoder{},
			ordinal.Encoder{},
			passthrough.Encoder{},
			power.Encoder{},
			quantilebins.Encoder{},
			robust.Encoder{},
			standardize.Encoder{},
		),
		Splits: kind.Of[kind.Split](
			column.Split{},
			containersplit.Split{},
			files.Split{},
			random.Split{},
			stratified.Split{},
			time.Split{},
		),
		Trainers: kind.Of[kind.Trainer](
			container.Trainer{},
			gbdt.Trainer{},
			linear.Trainer{},
			onnx.Trainer{},
			prior.Trainer{},
			rule.Trainer{},
		),
		Metrics: kind.Of[kind.Metric](
			metric.Accuracy{},
			metric.BalancedAccuracy{},
			metric.Brier{},
			metric.ECE{},
			metric.ExplainedVariance{},
			metric.F1{},
			metric.Lift10{},
			metric.LogLoss{},
			metric.MAE{},
			metric.MAPE{},
			metric.MCC{},
			metric.MaxError{},
			metric.MedAE{},
			metric.PRAUC{},
			metric.Precision{},
			metric.R2{},
			metric.RMSE{},
			metric.RMSLE{},
			metric.ROCAUC{},
			metric.Recall{},
			metric.SMAPE{},
			metric.Top3Accuracy{},
		),
		CustomMetrics: kind.Of[kind.CustomMetric](
			containermetric.Metric{},
		),
	}
}
