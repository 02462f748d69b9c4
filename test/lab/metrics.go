package lab

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	agent "github.com/tenet-cni/tenet/pkg/cluster"
)

// HTTPGet asks a node's tenetd over HTTP, on the node's own loopback.
func HTTPGet(tb testing.TB, h *Host, path string) (int, string) {
	tb.Helper()
	client := http.Client{Timeout: Patience(), Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, at string) (net.Conn, error) {
			var conn net.Conn
			err := Inside(h.NetNS, func() error {
				var err error
				conn, err = (&net.Dialer{}).DialContext(ctx, network, at)
				return err
			})
			return conn, err
		},
	}}
	ask, err := http.NewRequestWithContext(context.WithoutCancel(tb.Context()), http.MethodGet, "http://127.0.0.1:9477"+path, nil)
	Must(tb, err)
	got, err := client.Do(ask)
	Must(tb, err)
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(got.Body)
	Must(tb, err)
	return got.StatusCode, string(body)
}

// Scrape are the samples that a node's tenetd tells Prometheus, by name and labels.
func Scrape(tb testing.TB, h *Host) map[string]float64 {
	tb.Helper()
	code, body := HTTPGet(tb, h, "/metrics")
	if code != http.StatusOK {
		tb.Fatalf("status %d: %s", code, body)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(body) {
		if i := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") && i > 0 {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
			Must(tb, err)
			samples[line[:i]] = value
		}
	}
	return samples
}

// Measures waits until a node's tenetd tells Prometheus these values.
func Measures(tb testing.TB, h *Host, want map[string]float64) {
	tb.Helper()
	var got map[string]float64
	agrees := func() bool {
		got = Scrape(tb, h)
		for name, value := range want {
			if is, ok := got[name]; !ok || is != value {
				return false
			}
		}
		return true
	}
	if Within(Patience(), agrees) {
		return
	}
	for name, value := range want {
		if is, ok := got[name]; !ok || is != value {
			tb.Errorf("%s: %s is %g (told at all: %t), want %g", h.Name, name, is, ok, value)
		}
	}
	tb.FailNow()
}

// Healthy waits until /healthz answers with this status and these words.
func Healthy(tb testing.TB, h *Host, code int, words string) {
	tb.Helper()
	var is int
	var body string
	if !Within(Patience(), func() bool {
		is, body = HTTPGet(tb, h, "/healthz")
		return is == code && strings.Contains(body, words)
	}) {
		tb.Fatalf("%s: /healthz says %d, want %d and %q:\n%s", h.Name, is, code, words, body)
	}
}

// ToldBy is what tenetd says over its socket.
func ToldBy(tb testing.TB, h *Host) agent.Report {
	tb.Helper()
	out, err := h.Tenetctl("top", "-o", "json")
	Must(tb, err)
	var r agent.Report
	Must(tb, json.Unmarshal([]byte(out), &r))
	return r
}
