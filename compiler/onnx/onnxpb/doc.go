// Package onnxpb is the ONNX intermediate representation (onnx-ml.proto of the
// ONNX project, IR version 11, Apache-2.0), as protoc-gen-go makes it.
package onnxpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go_opt=Monnx-ml.proto=mlc.dev/mlc/compiler/onnx/onnxpb onnx-ml.proto
