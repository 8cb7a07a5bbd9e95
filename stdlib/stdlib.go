// Package stdlib is what users choose by `kind` and by name: each kind in a
// folder of its own, and the one table of them here.
package stdlib

import (
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/calibrator/isotonic"
	"mlc.dev/mlc/stdlib/calibrator/platt"
	"mlc.dev/mlc/stdlib/encoder/clip"
	"mlc.dev/mlc/stdlib/encoder/date"
	"mlc.dev/mlc/stdlib/encoder/frequency"
	"mlc.dev/mlc/stdlib/encoder/hash"
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
	"mlc.dev/mlc/stdlib/encoder/targetmean"
	"mlc.dev/mlc/stdlib/encoder/text"
	"mlc.dev/mlc/stdlib/metric"
	containermetric "mlc.dev/mlc/stdlib/metric/container"
	containersource "mlc.dev/mlc/stdlib/source/container"
	"mlc.dev/mlc/stdlib/source/file"
	"mlc.dev/mlc/stdlib/split/column"
	containersplit "mlc.dev/mlc/stdlib/split/container"
	"mlc.dev/mlc/stdlib/split/files"
	"mlc.dev/mlc/stdlib/split/group"
	"mlc.dev/mlc/stdlib/split/kfold"
	"mlc.dev/mlc/stdlib/split/random"
	"mlc.dev/mlc/stdlib/split/rolling"
	"mlc.dev/mlc/stdlib/split/stratified"
	"mlc.dev/mlc/stdlib/split/time"
	"mlc.dev/mlc/stdlib/trainer/container"
	"mlc.dev/mlc/stdlib/trainer/ensemble"
	"mlc.dev/mlc/stdlib/trainer/gbdt"
	"mlc.dev/mlc/stdlib/trainer/isolationforest"
	"mlc.dev/mlc/stdlib/trainer/linear"
	"mlc.dev/mlc/stdlib/trainer/onnx"
	"mlc.dev/mlc/stdlib/trainer/prior"
	"mlc.dev/mlc/stdlib/trainer/python"
	"mlc.dev/mlc/stdlib/trainer/rule"
)

// Kinds returns the table.
func Kinds() kind.Kinds {
	return kind.Kinds{
		Sources: kind.Of[kind.Source](
			containersource.Source{},
			file.Source{},
		),
		Calibrators: kind.Of[kind.Calibrator](
			isotonic.Calibrator{},
			platt.Calibrator{},
		),
		Encoders: kind.Of[kind.Encoder](
			clip.Encoder{},
			date.Encoder{},
			frequency.Encoder{},
			hash.Encoder{},
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
			targetmean.Encoder{},
			text.Encoder{},
		),
		Splits: kind.Of[kind.Split](
			column.Split{},
			containersplit.Split{},
			files.Split{},
			group.Split{},
			kfold.Split{},
			random.Split{},
			rolling.Split{},
			stratified.Split{},
			time.Split{},
		),
		Trainers: kind.Of[kind.Trainer](
			container.Trainer{},
			ensemble.Trainer{},
			gbdt.Trainer{},
			isolationforest.Trainer{},
			linear.Trainer{},
			onnx.Trainer{},
			prior.Trainer{},
			python.Trainer{},
			rule.Trainer{},
		),
		Metrics: kind.Of[kind.Metric](
			metric.Accuracy{},
			metric.BalancedAccuracy{},
			metric.Brier{},
			metric.CoverageError{},
			metric.ECE{},
			metric.ExactMatch{},
			metric.ExplainedVariance{},
			metric.F1{},
			metric.HammingLoss{},
			metric.Lift10{},
			metric.LogLoss{},
			metric.MAE{},
			metric.MAPE{},
			metric.MCC{},
			metric.MaxError{},
			metric.MedAE{},
			metric.MicroF1{},
			metric.PRAUC{},
			metric.Pinball{},
			metric.PoissonDeviance{},
			metric.Precision{},
			metric.R2{},
			metric.RMSE{},
			metric.RMSLE{},
			metric.ROCAUC{},
			metric.Recall{},
			metric.SMAPE{},
			metric.Top3Accuracy{},
			metric.Top5Accuracy{},
		),
		CustomMetrics: kind.Of[kind.CustomMetric](
			containermetric.Metric{},
		),
	}
}
