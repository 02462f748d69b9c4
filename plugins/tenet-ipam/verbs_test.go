package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTwoHundredProcessesAtOnceGetTwoHundredAddresses(t *testing.T) {
	const processes = 200
	plugin := filepath.Join(plugins(t), "tenet-ipam")
	text := conf("net", t.TempDir(), "")
	type answer struct {
		out []byte
		err error
	}
	answers := make(chan answer, processes)
	for i := range processes {
		go func() {
			out, err := run(t, plugin, call{verb: "ADD", container: fmt.Sprint("c", i), netns: "/run/netns/x", conf: text})
			answers <- answer{out, err}
		}()
	}
	seen := map[string]bool{}
	for range processes {
		a := <-answers
		if a.err != nil {
			t.Error(a.err)
			continue
		}
		got := addresses(t, a.out)
		if seen[got] {
			t.Errorf("%s was handed out twice", got)
		}
		seen[got] = true
	}
	if len(seen) != processes {
		t.Errorf("%d addresses for %d processes", len(seen), processes)
	}
}

func TestEachVerbKeepsItsPromise(t *testing.T) {
	plugin := filepath.Join(plugins(t), "tenet-ipam")
	dir := filepath.Join(t.TempDir(), "tenet")
	text := conf("net", dir, "")
	do := func(verb, container, text, args string) ([]byte, error) {
		t.Helper()
		return run(t, plugin, call{verb: verb, container: container, netns: "/run/netns/x", conf: text, args: args})
	}
	good := func(out []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	gives := func(want, container, args string) {
		t.Helper()
		if got := addresses(t, good(do("ADD", container, text, args))); got != want {
			t.Errorf("%s: got %s, want %s", container, got, want)
		}
	}
	good(do("STATUS", "", text, ""))
	good(do("DEL", "c1", text, ""))
	if _, err := do("CHECK", "c1", text, ""); err == nil {
		t.Error("CHECK before ADD went well")
	}
	gives("10.0.0.2/24 via 10.0.0.1", "c1", "")
	gives("10.0.0.2/24 via 10.0.0.1", "c1", "")
	gives("10.0.0.77/24 via 10.0.0.1", "c2", "IP=10.0.0.77")
	good(do("CHECK", "c1", text, ""))
	_, err := do("ADD", "c3", text, "IP=10.0.0.77")
	wantCode(t, err, 101, "10.0.0.77 is taken by c2/eth0")
	_, err = do("ADD", "c3", strings.ReplaceAll(text, `"network":"net"`, `"network":"other"`), "")
	wantCode(t, err, 101, "overlaps subnet 10.0.0.0/24 of network blue/net")
	_, err = do("ADD", "c3", strings.ReplaceAll(text, `"prefix"`, `"prefx"`), "")
	wantCode(t, err, 7, `unknown key "prefx"`)
	for range 2 {
		good(do("DEL", "c1", text, ""))
	}
	_, err = do("CHECK", "c1", text, "")
	wantCode(t, err, 101, "c1/eth0 holds no address")
	gives("10.0.0.3/24 via 10.0.0.1", "c3", "") // the released one rests
}

func TestFullSubnetIsCode100AndNamed(t *testing.T) {
	plugin := filepath.Join(plugins(t), "tenet-ipam")
	text := strings.ReplaceAll(conf("net", t.TempDir(), ""), "10.0.0.0/24", "10.0.0.0/30")
	if _, err := run(t, plugin, call{verb: "ADD", container: "c1", netns: "/x", conf: text}); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, plugin, call{verb: "ADD", container: "c2", netns: "/x", conf: text})
	wantCode(t, err, 100, "subnet 10.0.0.0/30 has no free address")
}

func TestGarbageCollectionKeepsToItsName(t *testing.T) {
	plugin := filepath.Join(plugins(t), "tenet-ipam")
	dir := t.TempDir()
	mine := conf("mine", dir, "")
	other := strings.ReplaceAll(conf("other", dir, ""), "10.0.0.0/24", "10.0.1.0/24")
	add := func(container, text string) {
		t.Helper()
		if _, err := run(t, plugin, call{verb: "ADD", container: container, netns: "/x", conf: text}); err != nil {
			t.Fatal(err)
		}
	}
	add("kept", mine)
	add("gone", mine)
	add("others", other)
	valid := `"cni.dev/valid-attachments":[{"containerID":"kept","ifname":"eth0"},{"containerID":"gone","ifname":"eth1"}],`
	for range 2 {
		if _, err := run(t, plugin, call{verb: "GC", conf: conf("mine", dir, valid)}); err != nil {
			t.Error(err)
		}
	}
	for container, want := range map[string]struct {
		text string
		held bool
	}{"kept": {mine, true}, "gone": {mine, false}, "others": {other, true}} {
		_, err := run(t, plugin, call{verb: "CHECK", container: container, netns: "/x", conf: want.text})
		if (err == nil) != want.held {
			t.Errorf("%s: held is to be %v: %v", container, want.held, err)
		}
	}
}

func TestStatusSaysThatTheStoreIsOfNoUse(t *testing.T) {
	plugin := filepath.Join(plugins(t), "tenet-ipam")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, plugin, call{verb: "STATUS", conf: conf("net", file, "")})
	wantCode(t, err, 50, file)
}
