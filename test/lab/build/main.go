// Command build makes the programs that the end-to-end tests execute, for TENET_BIN: go run ./test/lab/build DIR.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tenet-cni/tenet/test/lab"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/lab/build DIRECTORY")
		os.Exit(2)
	}
	dir, err := filepath.Abs(os.Args[1])
	if err == nil {
		err = lab.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
