//go:build tenetcut

package node

import (
	"os"
	"strings"
	"syscall"
	"time"
)

// Cut kills the process, as kill -9 would, if the environment names this step; or, if it names a file with it,
// "step@file", it makes the file and waits until that is gone. Only builds for tests have it.
func Cut(step string) {
	name, file, waits := strings.Cut(os.Getenv("TENET_CUT"), "@")
	if name != step {
		return
	}
	if waits {
		_ = os.WriteFile(file, nil, 0o600)
		for _, err := os.Stat(file); err == nil; _, err = os.Stat(file) {
			time.Sleep(time.Millisecond)
		}
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
