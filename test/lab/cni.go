package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
)

// Conf is a network configuration. Its methods return changed copies.
type Conf map[string]any

// Conf is a configuration that declares a network with the subnets, or, without any, names one.
func (h *Host) Conf(tenant, network string, subnets ...string) Conf {
	c := Conf{
		"cniVersion": "1.1.0", "name": tenant + "-" + network, "type": "tenet", "tenant": tenant, "network": network,
		"datapath": h.Datapath,
	}
	if h.Config != "" {
		c["config"] = h.Config
	} else {
		c["ovsRunDir"], c["dataDir"] = h.RunDir, h.DataDir
	}
	var list []any
	for _, s := range subnets {
		list = append(list, map[string]any{"prefix": s})
	}
	if len(list) > 0 {
		c["subnets"] = list
	}
	return c
}

// With sets a key.
func (c Conf) With(key string, value any) Conf {
	c = maps.Clone(c)
	c[key] = value
	return c
}

// Without removes keys.
func (c Conf) Without(keys ...string) Conf {
	c = maps.Clone(c)
	for _, k := range keys {
		delete(c, k)
	}
	return c
}

// JSON is what goes to a plugin's standard input.
func (c Conf) JSON() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // the test's own mistake
	}
	return b
}

// A Call is one execution of a plugin.
type Call struct {
	Verb, ID, NetNS, IfName, Args string
	Stdin                         []byte
	Plugin                        string // tenet if empty
	Cut                           string // the step after which the plugin kills itself
}

// An Answer is what a plugin said.
type Answer struct {
	Stdout []byte
	Stderr string
	// Err is the plugin's error, nil if it succeeded or was killed.
	Err    *types.Error
	Killed bool
}

// Code is the error's, 0 for none.
func (a Answer) Code() uint {
	if a.Err == nil {
		return 0
	}
	return a.Err.Code
}

// Failed is a's error, or one that says that the plugin died, or nil.
func (a Answer) Failed() error {
	switch {
	case a.Killed:
		return errors.New("the plugin was killed: " + a.Stderr)
	case a.Err != nil:
		return a.Err
	}
	return nil
}

// Exec executes a plugin as a runtime does: in the host's namespace, with CNI's environment. It may be called from
// any goroutine.
func (h *Host) Exec(c Call) (Answer, error) {
	plugin := filepath.Join(h.Bin, "tenet")
	switch {
	case c.Cut != "":
		plugin = filepath.Join(h.Bin, "cut", "tenet")
	case c.Plugin != "":
		plugin = filepath.Join(h.Bin, c.Plugin)
	}
	env := []string{"CNI_COMMAND=" + c.Verb, "CNI_PATH=" + h.Bin, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TENET_CUT=" + c.Cut}
	for k, v := range map[string]string{"CNI_CONTAINERID": c.ID, "CNI_NETNS": c.NetNS, "CNI_IFNAME": c.IfName, "CNI_ARGS": c.Args} {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	// More than the plugin's own deadlines, so that its answer is seen.
	ctx, cancel := context.WithTimeout(context.Background(), 4*Patience())
	defer cancel()
	var stdout, stderr bytes.Buffer
	err := Inside(h.NetNS, func() error {
		cmd := exec.CommandContext(ctx, plugin)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = slices.Sorted(slices.Values(env)), bytes.NewReader(c.Stdin), &stdout, &stderr
		return cmd.Run()
	})
	a := Answer{Stdout: stdout.Bytes(), Stderr: strings.TrimSpace(stderr.String())}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return a, nil
	case !exited:
		return a, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		a.Killed = true
		return a, nil
	}
	a.Err = &types.Error{}
	if err := json.Unmarshal(a.Stdout, a.Err); err != nil || a.Err.Msg == "" {
		return a, errors.New("the plugin failed without CNI's error: " + stdout.String() + a.Stderr)
	}
	return a, nil
}
