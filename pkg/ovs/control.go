package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Control runs a command on ovs-vswitchd's control socket, as ovs-appctl does, and returns its output: ofproto/trace,
// dpctl/flush-conntrack, dpctl/dump-flows, coverage/show … (ovs-vswitchd(8), "Runtime management commands").
//
// It asks the pid file in runDir for the socket's name. No ovs-vswitchd, or a silent one, is ErrUnavailable. A command
// that ovs-vswitchd refuses is an error with its words.
func Control(ctx context.Context, runDir, command string, args ...string) (string, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	pidFile := filepath.Join(runDir, "ovs-vswitchd.pid")
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: ovs-vswitchd is not running: there is no %s: %w", command, pidFile, ErrUnavailable)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", command, ErrUnavailable, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return "", fmt.Errorf("%s: %s has no pid in it: %w", command, pidFile, ErrUnavailable)
	}
	c, err := dial(ctx, "ovs-vswitchd", filepath.Join(runDir, fmt.Sprintf("ovs-vswitchd.%d.ctl", pid)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	defer c.close(errClosed)
	if args == nil {
		args = []string{} // params must be an array
	}
	raw, err := c.call(ctx, command, args)
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", fmt.Errorf("%s: %s answered what is no text: %w: %w", command, c.peer, ErrUnavailable, err)
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
