package linear

import (
	"context"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"mlc.dev/mlc/compiler/kind"
)

// BenchmarkText trains on what TF-IDF makes of short texts: 10,000 rows of about 12
// words of 4,096, and 77 classes that each have words of their own.
func BenchmarkText(b *testing.B) {
	const rows, cols, classes, words = 10_000, 4096, 77, 12
	r := rand.New(rand.NewPCG(1, 1))
	e := kind.Examples{X: kind.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}, Y: make([]float64, rows)}
	task := kind.Task{Kind: kind.Multiclass}
	for c := range classes {
		task.Classes = append(task.Classes, strconv.Itoa(c))
	}
	for i := range rows {
		c, row := i%classes, e.X.Row(i)
		e.Y[i] = float64(c)
		for w := range words {
			word := int(cols * math.Pow(r.Float64(), 3)) // few words are frequent
			if w < 4 {
				word = (c*41 + r.IntN(40)) % cols
			}
			row[word] += float32(1 + r.Float64())
		}
		norm := 0.0
		for _, v := range row {
			norm += float64(v * v)
		}
		for j := range row {
			row[j] /= float32(math.Sqrt(norm))
		}
	}
	for _, a := range []string{`{"l2":1,"tolerance":1e-6,"max_steps":2000}`, `{"l1":0.1,"l2":0.1,"tolerance":1e-6,"max_steps":2000}`} {
		b.Run(a, func(b *testing.B) {
			for range b.N {
				res, err := Trainer{}.Train(context.Background(), job(task, e, a, 2))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(res.Report["steps"].(int)), "steps")
			}
		})
	}
}
