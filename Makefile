# Every target gets what it needs: Go modules by go, ONNX Runtime by mlc doctor.
GO      ?= go
GOTESTSUM = gotest.tools/gotestsum@v1.13.0
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build demo test explore lint bench quality update runtime-library

build:
	$(GO) build -o bin/mlc ./cmd/mlc
	$(GO) build -ldflags=-s -o bin/mlc-serve ./cmd/mlc-serve

runtime-library: build
	bin/mlc doctor --fix

# The main job: a spec becomes a gated, registered model that predicts.
demo: runtime-library
	bin/mlc -C examples/flights vet
	bin/mlc -C examples/flights plan
	bin/mlc -C examples/flights apply
	bin/mlc -C examples/flights show late@staging
	bin/mlc -C examples/flights predict late@staging --input examples/flights/data/new_flights.csv

# The summary tells what was skipped, and why.
test: runtime-library
	$(GO) vet ./...
	$(GO) run $(GOTESTSUM) --format pkgname --format-hide-empty-pkg -- -timeout 30m -exec $(CURDIR)/.ci/seeded ./...

# Property tests with more checks and new seeds, which a failure prints.
CHECKS ?= 1000
explore: runtime-library
	$(GO) test -timeout 3h $$($(GO) list -f '{{$$d := .ImportPath}}{{range .TestImports}}{{if eq . "pgregory.net/rapid"}}{{$$d}} {{end}}{{end}}{{range .XTestImports}}{{if eq . "pgregory.net/rapid"}}{{$$d}} {{end}}{{end}}' ./...) -rapid.checks=$(CHECKS)

# Golden files: write what the tests would compare with.
update: runtime-library
	MLC_UPDATE=1 $(GO) test ./cmd/... ./compiler/... ./schema/... ./runtime/serve/...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run ./...

bench: runtime-library
	$(GO) run ./bench/cmd/bench

quality: runtime-library
	$(GO) run ./bench/cmd/quality
