package load

import "time"

// Histogram counts times exactly: in microseconds up to a second, in milliseconds
// up to a hundred, and as a hundred seconds beyond. Its memory does not grow.
type Histogram struct {
	fine   []uint32 // by microsecond
	coarse []uint32 // by millisecond
	n      uint64
	max    time.Duration
}

const (
	fineBuckets   = 1_000_000
	coarseBuckets = 100_000
)

func newHistogram() Histogram {
	return Histogram{fine: make([]uint32, fineBuckets), coarse: make([]uint32, coarseBuckets)}
}

func (h *Histogram) add(d time.Duration) {
	h.n++
	h.max = max(h.max, d)
	if us := max(d, 0) / time.Microsecond; us < fineBuckets {
		h.fine[us]++
		return
	}
	h.coarse[min(d/time.Millisecond, coarseBuckets-1)]++
}

// Count is how many times there are.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest time.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the least time that a share q of all do not exceed; 0 where there
// are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.999999), 1)
	seen := uint64(0)
	for us, n := range h.fine {
		if seen += uint64(n); seen >= rank {
			return time.Duration(us) * time.Microsecond
		}
	}
	for ms, n := range h.coarse {
		if seen += uint64(n); seen >= rank {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return h.max
}
