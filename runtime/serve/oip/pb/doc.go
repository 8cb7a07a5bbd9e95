// Package pb is grpc_service.proto as protoc-gen-go v1.36.12 and protoc-gen-go-grpc
// v1.6.2 make it.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative grpc_service.proto
