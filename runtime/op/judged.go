package op

import (
	"context"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/table"
)

// Judged are the rows that a model was tested on, with what it predicted of them.
type Judged struct {
	IDs []int64 // in the dataset
	// Groups are the rows' identities, which a bootstrap resamples; nil: each row is
	// its own.
	Groups []string
	Rows   evaluate.Predictions
}

// Files of the outputs that ReadJudged reads.
const (
	PredictionsFile = "predictions.parquet" // of model.evaluate
	RowsFile        = "rows.parquet"        // of dataset.build
)

// ReadJudged reads the predictions of a model.evaluate, and the identities of their
// rows from the dataset that they are of, where its path is not "".
func ReadJudged(ctx context.Context, predictions, dataset string, task kind.Task) (Judged, error) {
	var out Judged
	var err error
	if out.IDs, out.Rows, err = readPredictions(ctx, predictions, task, true); err != nil || dataset == "" {
		return out, err
	}
	at := make(map[int64]int, len(out.IDs))
	for i, id := range out.IDs {
		at[id] = i
	}
	out.Groups = make([]string, len(out.IDs))
	err = table.Read(ctx, dataset, map[string]table.Form{colRow: table.Ints, colGroup: table.Texts}, func(b table.Batch) error {
		groups := b.Texts(colGroup)
		for i, id := range b.Ints(colRow) {
			if k, ok := at[id]; ok {
				out.Groups[k] = groups[i]
			}
		}
		return nil
	})
	return out, err
}
