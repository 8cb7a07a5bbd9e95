// Command mlc compiles and runs machine-learning systems.
package main

import (
	"os"

	"mlc.dev/mlc/cmd/mlc/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
