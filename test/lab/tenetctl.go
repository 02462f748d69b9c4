package lab

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// Tenetctl runs the operator's program for this host, in the host's namespace, and returns what it prints.
func (h *Host) Tenetctl(args ...string) (string, error) {
	at := append([]string{filepath.Join(h.Bin, "tenetctl")}, h.told()...)
	return RunIn(h.tb, h.NetNS, append(at, args...)...)
}

// Sync is "tenetctl sync"; a failure fails the test.
func (h *Host) Sync(args ...string) {
	h.tb.Helper()
	_, err := h.Tenetctl(append([]string{"sync"}, args...)...)
	Must(h.tb, err)
}

// ServiceStarts starts ovs-vswitchd as systemd does with the drop-in for its service.
func (h *Host) ServiceStarts(dropIn string) {
	h.tb.Helper()
	for _, err := range h.DropIn(dropIn, "ExecStartPre") {
		h.tb.Error(err)
	}
	h.StartVswitchd()
	for _, err := range h.DropIn(dropIn, "ExecStartPost") {
		h.tb.Error(err)
	}
}

// DropIn runs the commands of a setting ("ExecStartPre", "ExecStartPost") of the drop-in for ovs-vswitchd.service, as
// systemd does: one after the other, and, where the line says so with "-", on past a failure. It returns what failed.
func (h *Host) DropIn(file, setting string) []error {
	h.tb.Helper()
	text, err := os.ReadFile(file)
	Must(h.tb, err)
	var failed []error
	ran := 0
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line, found := strings.CutPrefix(s.Text(), setting+"=")
		if !found {
			continue
		}
		ran++
		command, goOn := strings.CutPrefix(line, "-")
		args := strings.Fields(command)
		if filepath.Base(args[0]) == "tenetctl" {
			_, err = h.Tenetctl(args[1:]...)
		} else {
			_, err = h.Output(args...)
		}
		if err != nil {
			failed = append(failed, err)
			if !goOn {
				break
			}
		}
	}
	if ran == 0 {
		h.tb.Fatalf("%s has no %s", file, setting)
	}
	return failed
}
