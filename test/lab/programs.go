package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Programs is the directory of the built programs, a CNI_PATH: tenet, tenet-ipam, tenetctl, and of the reference
// plugins host-local and static. Below it, cut/tenet is the plugin that kills itself where TENET_CUT says.
func Programs(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv("TENET_BIN"); dir != "" {
		return dir
	}
	dir, err := build()
	Must(tb, err)
	return dir
}

// build builds once for the test process. The directory goes with Main.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tenet-bin")
	if err != nil {
		return "", err
	}
	built = dir
	return dir, Build(dir)
})

var built string

// Main runs the tests and removes what was built for them.
func Main(m *testing.M) int {
	defer func() {
		if built != "" {
			_ = os.RemoveAll(built)
		}
	}()
	return m.Run()
}

// Build builds the programs into dir, for TENET_BIN.
func Build(dir string) error {
	root, err := goTool("", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	for _, b := range []struct{ to, pkg, tags string }{
		{"tenet", "./plugins/tenet", ""},
		{"tenet-ipam", "./plugins/tenet-ipam", ""},
		{"tenetctl", "./cmd/tenetctl", ""},
		{"tenetd", "./cmd/tenetd", ""},
		{"cut/tenet", "./plugins/tenet", "tenetcut"},
	} {
		if _, err := goTool(root, "build", "-tags="+b.tags, "-o", filepath.Join(dir, b.to), b.pkg); err != nil {
			return err
		}
	}
	for _, plugin := range []string{"ipam/host-local", "ipam/static"} {
		if err := Install(dir, plugin); err != nil {
			return err
		}
	}
	return nil
}

// Install builds a reference plugin of containernetworking into dir, by its own module's list of what it needs.
func Install(dir, plugin string) error {
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags=-s -w", "github.com/containernetworking/plugins/plugins/"+plugin+"@v1.9.1") //nolint:noctx // ends by itself
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w\n%s", plugin, err, out)
	}
	return nil
}

func goTool(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...) //nolint:noctx // ends by itself
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
