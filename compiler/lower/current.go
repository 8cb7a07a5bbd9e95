package lower

import (
	"fmt"
	"strings"

	"mlc.dev/mlc/compiler/kind"
)

// Current is the version that this mlc gives a step of which an earlier one gave the
// version: the operation's and those of the same kinds, as they are now. ok is false
// where there is no such operation or kind any more.
func Current(op, version string, kinds kind.Kinds) (now string, ok bool) {
	find := map[string]func(name string) (kind.Versioned, bool){
		OpSnapshot: get(kinds.Sources), OpSplit: get(kinds.Splits), OpFit: get(kinds.Encoders), OpTrain: get(kinds.Trainers), OpCalibrate: get(kinds.Calibrators),
		OpEvaluate: get(kinds.Metrics), OpPool: get(kinds.Metrics), OpExplain: get(kinds.Metrics), OpGate: get(kinds.Metrics), OpChallenge: get(kinds.Metrics), OpMeasure: get(kinds.CustomMetrics),
	}[op]
	own, ok := versions[op]
	parts := strings.Fields(version)
	if !ok || len(parts) == 0 || len(parts) > 1 && find == nil {
		return "", false
	}
	now = fmt.Sprint(own)
	for _, p := range parts[1:] {
		name := p
		if i := strings.LastIndexByte(p, '.'); i > 0 {
			name = p[:i]
		}
		k, ok := find(name)
		if !ok {
			return "", false
		}
		now += fmt.Sprintf(" %s.%d", k.Name(), k.Version())
	}
	return now, true
}

func get[T kind.Versioned](s kind.Set[T]) func(string) (kind.Versioned, bool) {
	return func(name string) (kind.Versioned, bool) {
		k, ok := s.Get(name)
		return k, ok
	}
}
