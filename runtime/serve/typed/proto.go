package typed

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve/api"
)

// The numbers of the messages' fields.
const (
	requestRows = 1
	requestID   = 2
	requestKey  = 3

	responseID          = 1
	responseModel       = 2
	responseVersion     = 3
	responseVariant     = 4
	responseFallback    = 5
	responsePredictions = 6
	responseTiming      = 7

	timingQueue   = 1
	timingCompute = 2
	timingTotal   = 3

	binaryProbability = 1
	binaryDecision    = 2

	multiclassClass         = 1
	multiclassProbabilities = 2

	regressionPrediction = 1 // and a count's

	// Of these no two tasks share a number.
	multilabelLabels        = 3
	multilabelProbabilities = 4
	quantileQuantiles       = 5
	anomalyScore            = 6
	anomalyDecision         = 7
)

// The greatest number that protobuf has, and those that it keeps for itself.
const (
	lastNumber                  = 1<<29 - 1
	firstReserved, lastReserved = 19000, 19999
)

// numberOf is the number of a feature in messages. It follows from its name and type, not
// from what else a model takes: a client stays right when a version has other features,
// and what it sends of one that is gone, or of another type now, is no field at all.
func numberOf(name string, t types.Type) int {
	for salt := 0; ; salt++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", salt, t, name))
		if n := int(binary.BigEndian.Uint32(sum[:]) & lastNumber); n > 0 && (n < firstReserved || n > lastReserved) {
			return n
		}
	}
}

// nameProto gives the fields their names and numbers in the .proto. Fields whose names
// are one in protobuf have their numbers behind them.
func (f *form) nameProto() {
	// Protobuf also wants the names to differ in JSON, where underscores go.
	plain := func(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }
	count := map[string]int{}
	for i := range f.fields {
		x := &f.fields[i]
		x.number, x.proto = numberOf(x.Name, x.Type), identifier(x.Name)
		count[plain(x.proto)]++
		f.byNumber = append(f.byNumber, i)
	}
	taken := map[string]bool{}
	for i := range f.fields {
		x := &f.fields[i]
		if count[plain(x.proto)] > 1 {
			x.proto = fmt.Sprintf("%s_%d", x.proto, x.number)
		}
		for taken[plain(x.proto)] {
			x.proto += "_x"
		}
		taken[plain(x.proto)] = true
	}
	slices.SortFunc(f.byNumber, func(a, b int) int { return cmp.Compare(f.fields[a].number, f.fields[b].number) })
	for k := 1; k < len(f.byNumber); k++ {
		if a, b := &f.fields[f.byNumber[k-1]], &f.fields[f.byNumber[k]]; a.number == b.number {
			f.protoErr = api.Errorf(api.Unsupported, "features %q and %q have the same number in protobuf, so there is no typed API over gRPC; rename one of them", a.Name, b.Name)
		}
	}
}

// identifier is s as protobuf takes names.
func identifier(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			b[i] = '_'
		}
	}
	if len(b) == 0 || !(b[0]|0x20 >= 'a' && b[0]|0x20 <= 'z') {
		b = append([]byte("x_"), b...)
	}
	return string(b)
}

// protoPackage is the package of svc's messages.
func protoPackage(svc *service.Service) string {
	return fmt.Sprintf("mlc.%s.%s.v1", strings.ToLower(identifier(svc.System)), strings.ToLower(identifier(svc.Name)))
}

var protoTypes = map[types.Type]string{types.Int: "optional int64", types.Float: "optional double", types.Bool: "optional bool", types.String: "optional string", types.Timestamp: "google.protobuf.Timestamp"}

// Proto describes the API of svc over gRPC as a .proto of version 3. A feature's
// number is numberOf's; one that is not set is missing. The error is an *api.Error
// where the signature cannot be served.
func Proto(svc *service.Service, sig *bundle.Signature) (string, error) {
	f := newForm(svc, sig)
	if err := cmp.Or(f.err, f.protoErr); err != nil {
		return "", err
	}
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	pkg := protoPackage(svc)
	w("// Predictions of model %s, a %s task. Made by mlc from the model's signature.", sig.Model, sig.Task.Kind)
	w("syntax = \"proto3\";\n\npackage %s;\n", pkg)
	for i := range f.fields {
		if f.fields[i].Type == types.Timestamp {
			w("import \"google/protobuf/timestamp.proto\";\n")
			break
		}
	}
	w("option go_package = %q;\n", strings.ReplaceAll(pkg, ".", "/")+";predictorv1")
	w("// Predictor predicts rows of features.\nservice Predictor {")
	w("  // Predict answers every row, in order. Rows that are not what the model takes are\n  // INVALID_ARGUMENT, with each fault in the details, a google.rpc.BadRequest.")
	w("  rpc Predict(PredictRequest) returns (PredictResponse);\n}\n")
	w("// Row is the features of a row. One that is not set is missing. A field's number follows\n// from its name and type: it is the same in every version of the model that has it.\nmessage Row {")
	for i := range f.fields {
		x := &f.fields[i]
		w("  // %s", comment(x.describe()))
		if len(x.In) > 0 {
			w("  // One of %s.", comment(x.list()))
		}
		w("  %s %s = %d;", protoTypes[x.Type], x.proto, x.number)
	}
	w("}\n")
	w("message PredictRequest {")
	w("  // At least 1, at most %d.\n  repeated Row rows = %d;", maxRows(svc), requestRows)
	w("  // The caller's name for the request; it comes back.\n  string id = %d;", requestID)
	w("  // Keeps a caller with one variant of the model.\n  string key = %d;\n}\n", requestKey)
	w("message PredictResponse {\n  string id = %d;", responseID)
	w("  // The model that answered, its version, and the branch of the split, or else the alias or version; of several steps none.\n  string model = %d;\n  string version = %d;\n  string variant = %d;", responseModel, responseVersion, responseVariant)
	w("  // The answer is the declared fallback's.\n  bool fallback = %d;", responseFallback)
	w("  // One for each row, in order.\n  repeated Prediction predictions = %d;\n  Timing timing = %d;\n}\n", responsePredictions, responseTiming)
	w("// Prediction is the answer to a row. A number that is not finite is not set.\nmessage Prediction {")
	switch sig.Task.Kind {
	case kind.Binary:
		w("  // How likely it is true.\n  optional float probability = %d;", binaryProbability)
		w("  // Whether the probability is at least %s.\n  optional bool decision = %d;", whose(svc), binaryDecision)
	case kind.Anomaly:
		w("  // How unusual it is, from 0 (usual) to 1.\n  optional float score = %d;", anomalyScore)
		w("  // Whether the score is at least %s.\n  optional bool decision = %d;", whose(svc), anomalyDecision)
	case kind.Multilabel:
		w("  // The labels whose probability is at least 0.5.\n  repeated string labels = %d;", multilabelLabels)
		w("  // How likely each label is.\n  map<string, float> probabilities = %d;", multilabelProbabilities)
	case kind.Quantile:
		w("  // What the value stays below, by the probability of that, as %s.\n  map<string, float> quantiles = %d;", f.columns[0], quantileQuantiles)
	case kind.Multiclass:
		w("  // The likeliest class.\n  string class = %d;", multiclassClass)
		w("  // How likely each class is.\n  map<string, float> probabilities = %d;", multiclassProbabilities)
	default:
		w("  optional float prediction = %d;", regressionPrediction)
	}
	w("}\n")
	w("// Timing counts microseconds: that the rows waited, that the model ran, and all.\nmessage Timing {")
	w("  int64 queue_us = %d;\n  int64 compute_us = %d;\n  int64 total_us = %d;\n}", timingQueue, timingCompute, timingTotal)
	return b.String(), nil
}

// comment is s as it can stand in a line's comment.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || !utf8.ValidRune(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
}

// errMalformed is a message that is none of protobuf's.
var errMalformed = api.Errorf(api.BadRequest, "the message is not what the .proto says")

// fieldOf is the place of the feature with a number, or -1. next is that number's place
// among the rising ones if the field before it was the one before, as writers have it.
func (f *form) fieldOf(n protowire.Number, next *int) int {
	k := *next
	if k >= len(f.byNumber) || f.fields[f.byNumber[k]].number != int(n) {
		var ok bool
		if k, ok = slices.BinarySearchFunc(f.byNumber, int(n), func(i, n int) int { return cmp.Compare(f.fields[i].number, n) }); !ok {
			return -1
		}
	}
	*next = k + 1
	return f.byNumber[k]
}

// readProto reads a PredictRequest. An error says that it is none or has too many
// rows; whatever else is wrong is among the faults.
func (b *batch) readProto(m []byte) *api.Error {
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return errMalformed
		}
		m = m[n:]
		if num > requestKey {
			if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
				return errMalformed
			}
			m = m[n:]
			if !b.full() {
				b.add(strconv.Itoa(int(num)), Unknown, "", "a request has no field of that number")
			}
			continue
		}
		v, n := protowire.ConsumeBytes(m)
		if typ != protowire.BytesType || n < 0 {
			return errMalformed
		}
		m = m[n:]
		switch num {
		case requestRows:
			if err := b.begin(); err != nil {
				return err
			}
			if err := b.readProtoRow(v); err != nil {
				return err
			}
			b.end()
		case requestID:
			if b.id = string(v); b.id != "" && !isID(b.id) {
				b.id = ""
				if !b.full() {
					b.add("id", BadText, idText, "%q does not do", short(string(v)))
				}
			}
		case requestKey:
			if b.key = string(v); !utf8.Valid(v) {
				return errMalformed
			} else if !isKey(b.key) && !b.full() {
				b.add("key", BadText, keyText, "%q does not do", short(b.key))
			}
		}
	}
	if b.rows == 0 && !b.full() {
		b.add("rows", Empty, "", "there are no rows")
	}
	return nil
}

// readProtoRow reads a Row. Of a field that comes twice the last one counts; of a
// Timestamp too, where protobuf would merge them and no writer sends two.
func (b *batch) readProtoRow(m []byte) *api.Error {
	next := 0
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return errMalformed
		}
		m = m[n:]
		if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
			return errMalformed
		}
		v := m[:n]
		m = m[n:]
		i := b.fieldOf(num, &next)
		if i < 0 {
			if !b.full() {
				b.add(b.place(strconv.Itoa(int(num))), Unknown, "generate the client from this version's .proto", "a row has no field of that number")
			}
			continue
		}
		b.stamp[i] = b.rows
		x := &b.fields[i]
		if typ != wireTypes[x.Type] {
			b.fault(i, WrongType, "generate the client from this version's .proto", "not %s on the wire", article(x.Type))
			continue
		}
		switch x.Type {
		case types.Int:
			u, _ := protowire.ConsumeVarint(v)
			b.num(i, float64(int64(u)))
		case types.Bool:
			u, _ := protowire.ConsumeVarint(v)
			d := 0.0
			if u != 0 {
				d = 1
			}
			b.num(i, d)
		case types.Float:
			u, _ := protowire.ConsumeFixed64(v)
			b.num(i, math.Float64frombits(u))
		case types.String:
			s, _ := protowire.ConsumeBytes(v)
			if !utf8.Valid(s) {
				return errMalformed
			}
			b.str(i, s)
		case types.Timestamp:
			s, _ := protowire.ConsumeBytes(v)
			t, known, ok := readTimestamp(s)
			if !ok {
				return errMalformed
			}
			if !known {
				b.fault(i, BadTime, "", "not a time of the years 1 to 9999")
				continue
			}
			b.num(i, t)
		}
	}
	return nil
}

var wireTypes = map[types.Type]protowire.Type{types.Int: protowire.VarintType, types.Bool: protowire.VarintType, types.Float: protowire.Fixed64Type,
	types.String: protowire.BytesType, types.Timestamp: protowire.BytesType}

// readTimestamp reads a google.protobuf.Timestamp as microseconds; known tells that
// it is in the range of those.
func readTimestamp(m []byte) (micros float64, known, ok bool) {
	var seconds, nanos int64
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return 0, false, false
		}
		m = m[n:]
		if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
			return 0, false, false
		}
		if typ == protowire.VarintType {
			u, _ := protowire.ConsumeVarint(m)
			switch num {
			case 1:
				seconds = int64(u)
			case 2:
				nanos = int64(int32(u))
			}
		}
		m = m[n:]
	}
	known = seconds >= -62135596800 && seconds <= 253402300799 && nanos >= 0 && nanos < 1e9
	return float64(seconds*1e6 + nanos/1000), known, true
}

// appendProto writes the answer as a PredictResponse. scratch is for use on the way.
func (f *form) appendProto(b, scratch []byte, id string, a *api.Answer, r results, total time.Duration) (out, used []byte) {
	text := func(n protowire.Number, s string) {
		if s != "" {
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), strings.ToValidUTF8(s, "\ufffd"))
		}
	}
	text(responseID, id)
	text(responseModel, a.Model)
	text(responseVersion, a.Version)
	text(responseVariant, a.Variant)
	if a.Fallback {
		b = protowire.AppendVarint(protowire.AppendTag(b, responseFallback, protowire.VarintType), 1)
	}
	for i := range r.rows {
		m := scratch[:0]
		switch f.sig.Task.Kind {
		case kind.Binary:
			m = decided(m, binaryProbability, binaryDecision, r.main[i], r.threshold)
		case kind.Anomaly:
			m = decided(m, anomalyScore, anomalyDecision, r.main[i], r.threshold)
		case kind.Multiclass:
			m = protowire.AppendString(protowire.AppendTag(m, multiclassClass, protowire.BytesType), r.class[i])
			m = r.appendProtoColumns(m, multiclassProbabilities, i)
		case kind.Multilabel:
			for c, p := range r.row(i) {
				if p >= labelCut {
					m = protowire.AppendString(protowire.AppendTag(m, multilabelLabels, protowire.BytesType), r.columns[c])
				}
			}
			m = r.appendProtoColumns(m, multilabelProbabilities, i)
		case kind.Quantile:
			m = r.appendProtoColumns(m, quantileQuantiles, i)
		default:
			if p := r.main[i]; finite(p) {
				m = appendProtoNumber(m, regressionPrediction, p)
			}
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, responsePredictions, protowire.BytesType), m)
		scratch = m
	}
	m := scratch[:0]
	for n, d := range []time.Duration{a.Queue, a.Compute, total} {
		m = protowire.AppendVarint(protowire.AppendTag(m, timingQueue+protowire.Number(n), protowire.VarintType), uint64(micros(d)))
	}
	return protowire.AppendBytes(protowire.AppendTag(b, responseTiming, protowire.BytesType), m), m
}

func appendProtoNumber(m []byte, n protowire.Number, v float32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(m, n, protowire.Fixed32Type), math.Float32bits(v))
}

// decided writes a number and what is decided by it, where it is finite.
func decided(m []byte, value, decision protowire.Number, v, threshold float32) []byte {
	if !finite(v) {
		return m
	}
	m = appendProtoNumber(m, value, v)
	return protowire.AppendVarint(protowire.AppendTag(m, decision, protowire.VarintType), protowire.EncodeBool(v >= threshold))
}

// appendProtoColumns writes a row's columns as a map by name.
func (r results) appendProtoColumns(m []byte, n protowire.Number, i int) []byte {
	for c, v := range r.row(i) {
		if !finite(v) {
			continue
		}
		name := r.columns[c]
		m = protowire.AppendTag(m, n, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(protowire.SizeTag(1)+protowire.SizeBytes(len(name))+protowire.SizeTag(2)+protowire.SizeFixed32()))
		m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), name)
		m = appendProtoNumber(m, 2, v)
	}
	return m
}
