package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

var built struct {
	sync.Mutex
	dir string
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

// plugins returns a directory with the built plugin, and with those of other modules, which are
// named with their version and built with their own dependencies.
func plugins(t *testing.T, others ...string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "tenet-ipam-test") //nolint:usetesting // it serves all tests
		if err != nil {
			t.Fatal(err)
		}
		built.dir = dir
	}
	for _, pkg := range append(others, ".") {
		name, _, _ := strings.Cut(filepath.Base(pkg), "@")
		if pkg == "." {
			name = "tenet-ipam"
		}
		if _, err := os.Stat(filepath.Join(built.dir, name)); err == nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "go", "install", pkg)
		cmd.Env = append(os.Environ(), "GOBIN="+built.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	return built.dir
}

// missing skips the test, or fails it where TENET_REQUIRE says that it must run.
func missing(t *testing.T, need, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TENET_REQUIRE"), ","), need) {
		t.Fatalf("TENET_REQUIRE has %s, but %s", need, why)
	}
	t.Skip(why)
}

// call is one execution of a plugin.
type call struct {
	verb, container, netns, args, conf string
	within                             []string // a command that executes it somewhere else
}

// run executes a plugin and returns what it printed; its error is a *types.Error if it printed one.
func run(t *testing.T, plugin string, c call) ([]byte, error) {
	t.Helper()
	argv := append(slices.Clone(c.within), plugin)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+c.verb, "CNI_CONTAINERID="+c.container, "CNI_IFNAME=eth0", "CNI_NETNS="+c.netns,
		"CNI_ARGS="+c.args, "CNI_PATH="+filepath.Dir(plugin))
	cmd.Stdin = strings.NewReader(c.conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	var cniError types.Error
	if json.Unmarshal(out, &cniError) == nil && cniError.Code != 0 {
		return nil, &cniError
	}
	return nil, fmt.Errorf("%w: %s%s", err, out, stderr.String())
}

// addresses returns those in a result, with prefix length and gateway.
func addresses(t *testing.T, out []byte) string {
	t.Helper()
	result, err := current.NewResult(out)
	if err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var list []string
	for _, ip := range result.(*current.Result).IPs {
		list = append(list, fmt.Sprintf("%s via %s", ip.Address.String(), ip.Gateway))
	}
	return strings.Join(list, ", ")
}

// conf is what another main plugin hands on.
func conf(name, dataDir, more string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"bridge","bridge":"cni0","isGateway":true,%s"ipam":{"type":"tenet-ipam","tenant":"blue","network":%q,"dataDir":%q,"subnets":[{"prefix":"10.0.0.0/24"}]}}`,
		name, more, name, dataDir)
}

func wantCode(t *testing.T, err error, code uint, text string) {
	t.Helper()
	e, ok := errors.AsType[*types.Error](err)
	if !ok || e.Code != code || !strings.Contains(e.Msg, text) {
		t.Errorf("got %#v, want code %d with %q", err, code, text)
	}
}
