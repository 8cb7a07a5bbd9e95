package oip

import (
	"cmp"
	"maps"
	"slices"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/internal/codec"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// What models say about themselves, in the forms of HTTP; the forms of gRPC are
// made of these.

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

type modelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions"`
	Platform string           `json:"platform"`
	Inputs   []tensorMetadata `json:"inputs"`
	Outputs  []tensorMetadata `json:"outputs"`
}

func (s *server) metadata(m api.Model) modelMetadata {
	tensors := func(infos []ort.Info) []tensorMetadata {
		out := make([]tensorMetadata, len(infos))
		for i, x := range infos {
			out[i] = tensorMetadata{x.Name, codec.Datatype(x.Type), append([]int64{}, x.Shape...)}
			if codec.FromONNX(x.Type) == codec.None {
				out[i].Shape = []int64{-1}
			}
		}
		return out
	}
	return modelMetadata{m.Name(), s.versions(m.Name()), platform, tensors(m.Inputs()), tensors(m.Outputs())}
}

func (d modelMetadata) proto() *pb.ModelMetadataResponse {
	tensors := func(in []tensorMetadata) []*pb.ModelMetadataResponse_TensorMetadata {
		out := make([]*pb.ModelMetadataResponse_TensorMetadata, len(in))
		for i, x := range in {
			out[i] = &pb.ModelMetadataResponse_TensorMetadata{Name: x.Name, Datatype: x.Datatype, Shape: x.Shape}
		}
		return out
	}
	return &pb.ModelMetadataResponse{Name: d.Name, Versions: d.Versions, Platform: d.Platform, Inputs: tensors(d.Inputs), Outputs: tensors(d.Outputs)}
}

type configTensor struct {
	Name     string  `json:"name"`
	DataType string  `json:"data_type"`
	Dims     []int64 `json:"dims"`
	Optional bool    `json:"optional,omitempty"`
}

type dynamicBatching struct {
	PreferredBatchSize        []int32 `json:"preferred_batch_size"`
	MaxQueueDelayMicroseconds int64   `json:"max_queue_delay_microseconds"`
}

type transactionPolicy struct {
	Decoupled bool `json:"decoupled"`
}

// modelConfig is a model as Triton would be told of it: what its perf_analyzer reads.
type modelConfig struct {
	Name                   string            `json:"name"`
	Platform               string            `json:"platform"`
	Backend                string            `json:"backend"`
	MaxBatchSize           int               `json:"max_batch_size"`
	Input                  []configTensor    `json:"input"`
	Output                 []configTensor    `json:"output"`
	DynamicBatching        *dynamicBatching  `json:"dynamic_batching,omitempty"`
	DefaultModelFilename   string            `json:"default_model_filename"`
	ModelTransactionPolicy transactionPolicy `json:"model_transaction_policy"`
}

func config(m api.Model) modelConfig {
	limits := m.Limits()
	tensors := func(infos []ort.Info) []configTensor {
		out := make([]configTensor, len(infos))
		for i, x := range infos {
			dims := append([]int64{}, x.Shape...)
			if limits.MaxRows > 0 && len(dims) > 0 {
				dims = dims[1:]
			}
			name := codec.FromONNX(x.Type).String()
			switch name {
			case "BYTES":
				name = "STRING"
			case "":
				name, dims = "INVALID", []int64{-1}
			}
			out[i] = configTensor{x.Name, "TYPE_" + name, dims, x.Type == "optional"}
		}
		return out
	}
	most := cmp.Or(limits.PerCall, limits.MaxRows) // perf_analyzer sends no more in a request
	c := modelConfig{Name: m.Name(), Platform: "onnxruntime_onnx", Backend: "onnxruntime", MaxBatchSize: most,
		Input: tensors(m.Inputs()), Output: tensors(m.Outputs()), DefaultModelFilename: "model.onnx"}
	for i := range c.Output {
		c.Output[i].Optional = false
	}
	if limits.MaxRows > 1 {
		c.DynamicBatching = &dynamicBatching{[]int32{int32(min(limits.MaxRows, most))}, limits.MaxDelay.Microseconds()}
	}
	return c
}

func (c modelConfig) proto() *pb.ModelConfig {
	out := &pb.ModelConfig{Name: c.Name, Platform: c.Platform, Backend: c.Backend, MaxBatchSize: int32(c.MaxBatchSize),
		DefaultModelFilename: c.DefaultModelFilename, ModelTransactionPolicy: &pb.ModelTransactionPolicy{}}
	for _, x := range c.Input {
		out.Input = append(out.Input, &pb.ModelInput{Name: x.Name, DataType: pb.DataType(pb.DataType_value[x.DataType]), Dims: x.Dims, Optional: x.Optional})
	}
	for _, x := range c.Output {
		out.Output = append(out.Output, &pb.ModelOutput{Name: x.Name, DataType: pb.DataType(pb.DataType_value[x.DataType]), Dims: x.Dims})
	}
	if d := c.DynamicBatching; d != nil {
		out.DynamicBatching = &pb.ModelDynamicBatching{PreferredBatchSize: d.PreferredBatchSize, MaxQueueDelayMicroseconds: uint64(d.MaxQueueDelayMicroseconds)}
	}
	return out
}

// duration is a count and nanoseconds altogether.
type duration struct {
	Count uint64 `json:"count"`
	NS    uint64 `json:"ns"`
}

type inferenceStats struct {
	Success       duration `json:"success"`
	Fail          duration `json:"fail"`
	Queue         duration `json:"queue"`
	ComputeInput  duration `json:"compute_input"`
	ComputeInfer  duration `json:"compute_infer"`
	ComputeOutput duration `json:"compute_output"`
	CacheHit      duration `json:"cache_hit"`
	CacheMiss     duration `json:"cache_miss"`
}

type batchStats struct {
	BatchSize     int      `json:"batch_size"`
	ComputeInput  duration `json:"compute_input"`
	ComputeInfer  duration `json:"compute_infer"`
	ComputeOutput duration `json:"compute_output"`
}

// modelStats are a model's counts. LastInference is in milliseconds since the epoch,
// 0 before the first one. Inputs and outputs are shared with the runtime, so that
// their parts of the time are counts alone.
type modelStats struct {
	Name           string         `json:"name"`
	Version        string         `json:"version"`
	LastInference  int64          `json:"last_inference"`
	InferenceCount uint64         `json:"inference_count"`
	ExecutionCount uint64         `json:"execution_count"`
	InferenceStats inferenceStats `json:"inference_stats"`
	BatchStats     []batchStats   `json:"batch_stats"`
}

func stats(m api.Model) modelStats {
	s := m.Stats()
	of := func(x api.Stat) duration { return duration{x.Count, uint64(x.Total)} }
	out := modelStats{Name: m.Name(), Version: m.Version(), InferenceCount: s.Inferences, ExecutionCount: s.Executions, BatchStats: []batchStats{}}
	if !s.LastInference.IsZero() {
		out.LastInference = s.LastInference.UnixMilli()
	}
	copies := duration{Count: s.Compute.Count}
	out.InferenceStats = inferenceStats{Success: of(s.Success), Fail: of(s.Failure), Queue: of(s.Queue), ComputeInput: copies, ComputeInfer: of(s.Compute), ComputeOutput: copies}
	for _, rows := range slices.SortedFunc(maps.Keys(s.Batches), cmp.Compare[int]) {
		b := s.Batches[rows]
		copies := duration{Count: b.Count}
		out.BatchStats = append(out.BatchStats, batchStats{rows, copies, of(b), copies})
	}
	return out
}

func (s modelStats) proto() *pb.ModelStatistics {
	of := func(d duration) *pb.StatisticDuration { return &pb.StatisticDuration{Count: d.Count, Ns: d.NS} }
	i := s.InferenceStats
	out := &pb.ModelStatistics{Name: s.Name, Version: s.Version, LastInference: uint64(s.LastInference), InferenceCount: s.InferenceCount, ExecutionCount: s.ExecutionCount,
		InferenceStats: &pb.InferStatistics{Success: of(i.Success), Fail: of(i.Fail), Queue: of(i.Queue), ComputeInput: of(i.ComputeInput), ComputeInfer: of(i.ComputeInfer),
			ComputeOutput: of(i.ComputeOutput), CacheHit: of(i.CacheHit), CacheMiss: of(i.CacheMiss)}}
	for _, b := range s.BatchStats {
		out.BatchStats = append(out.BatchStats, &pb.InferBatchStatistics{BatchSize: uint64(b.BatchSize), ComputeInput: of(b.ComputeInput), ComputeInfer: of(b.ComputeInfer), ComputeOutput: of(b.ComputeOutput)})
	}
	return out
}
