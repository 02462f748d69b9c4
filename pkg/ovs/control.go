package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Control runs a command on ovs-vswitchd's control socket, as ovs-appctl does, and returns its output: ofproto/trace,
// dpctl/flush-conntrack, dpctl/dump-flows, coverage/show … (ovs-vswitchd(8), "Runtime management commands").
//
// It asks the pid file in runDir for the socket's name. No ovs-vswitchd, or a silent one, is ErrUnavailable. A command
// that ovs-vswitchd refuses is an error with its words.
func Control(ctx context.Context, runDir, command string, args ...string) (string, error) {
	out, err := ControlEach(ctx, runDir, command, [][]string{args})
	if err != nil {
		return "", err
	}
	return out[0], nil
}

// ControlEach is Control for the same command with several lists of arguments, all over one connection and at once:
// each alone would wait for a turn of ovs-vswitchd's main loop. They are done in no order; the first error counts.
func ControlEach(ctx context.Context, runDir, command string, calls [][]string) ([]string, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	c, err := dialControl(ctx, runDir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	defer c.close(errClosed)
	out, errs := make([]string, len(calls)), make([]error, len(calls))
	var wg sync.WaitGroup
	for i, args := range calls {
		wg.Go(func() { out[i], errs[i] = c.control(ctx, command, args) })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, fmt.Errorf("%s: %w", command, errs[i])
	}
	return out, nil
}

// dialControl connects to ovs-vswitchd's control socket.
func dialControl(ctx context.Context, runDir string) (*conn, error) {
	pidFile := filepath.Join(runDir, "ovs-vswitchd.pid")
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("ovs-vswitchd is not running: there is no %s: %w: %w", pidFile, ErrUnavailable, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s has no pid in it: %w", pidFile, ErrUnavailable)
	}
	return dial(ctx, "ovs-vswitchd", filepath.Join(runDir, fmt.Sprintf("ovs-vswitchd.%d.ctl", pid)))
}

func (c *conn) control(ctx context.Context, command string, args []string) (string, error) {
	if args == nil {
		args = []string{} // params must be an array
	}
	raw, err := c.call(ctx, command, args)
	if err != nil {
		return "", err
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", fmt.Errorf("%s answered what is no text: %w: %w", c.peer, ErrUnavailable, err)
	}
	return out, nil
}

// Version is the version of the running ovs-vswitchd, as "3.1.0". (The database's ovs_version is what a start script
// wrote there, if one did.) No ovs-vswitchd is ErrUnavailable.
func Version(ctx context.Context, runDir string) (string, error) {
	out, err := Control(ctx, runDir, "version") // "ovs-vswitchd (Open vSwitch) 3.1.0" and perhaps more lines
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", fmt.Errorf("version: ovs-vswitchd answered nothing: %w", ErrUnavailable)
	}
	return words[len(words)-1], nil
}
