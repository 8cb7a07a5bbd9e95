// Command mlc-serve is the inference service alone: it has neither the compiler
// nor the set-wise engine, and makes a small image.
package main

import (
	"os"

	"mlc.dev/mlc/cmd/mlc-serve/internal/command"
)

func main() { os.Exit(command.Main(os.Args[1:])) }
