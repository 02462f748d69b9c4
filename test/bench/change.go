package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Endpoints of other nodes come and go at an even pace, in all networks here in turn. From just before it is put into etcd
// until the switch has done it is what a change took.

const changesPerSecond = 100

// changes are how long they took until the switch had them.
type changes struct {
	memory // after them

	Took   []float64 `json:"took_ms"`
	Puts   []float64 `json:"put_ms"` // of it, etcd's answer
	Unseen int       `json:"unseen"` // never came
	// Seen is how much later than the switch's own answer to who changes a flow it is seen here: it is in Took.
	Seen []float64 `json:"seen_ms"`
	// What the machine does meanwhile: how late a turn begins, and what a write to the node's store cannot do without.
	Late      []float64 `json:"late_ms"`
	Disk      []float64 `json:"disk_ms"`
	CPU       float64   `json:"cpu"`        // of tenetd, in CPUs
	SwitchCPU float64   `json:"switch_cpu"` // of ovs-vswitchd
}

// A turn is one of the changes.
type turn struct {
	remote vnet.Remote
	gone   bool

	due, began, put time.Time
}

// change measures them.
func (s *site) change(ctx context.Context) error {
	watch, err := s.watchFlows()
	if err != nil {
		return err
	}
	defer watch.stop()
	found := &s.found.Changes
	if found.Seen, err = s.delay(ctx, watch); err != nil {
		return err
	}
	turns := s.turns(int(s.Changes.Seconds() * changesPerSecond))
	own, err := cpu(s.daemon.cmd.Process.Pid)
	if err != nil {
		return err
	}
	vswitchd, err := s.switchCPU()
	if err != nil {
		return err
	}
	disk := s.watchDisk()
	start := time.Now()
	failed := make([]error, len(turns))
	var all sync.WaitGroup
	for i := range turns {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / changesPerSecond)))
		all.Go(func() { // an etcd that takes its time does not slow the pace
			t := &turns[i]
			t.due, t.began = start.Add(time.Duration(i)*time.Second/changesPerSecond), time.Now()
			failed[i] = s.tell(ctx, t.remote, t.gone)
			t.put = time.Now()
		})
	}
	all.Wait()
	if found.Disk, err = disk(); err != nil {
		return err
	}
	const patience = 5 * time.Second
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(turns, func(t turn) bool { _, ok := watch.at(t.sighting()); return !ok }) {
			break
		}
	}
	took := time.Since(start)
	for _, t := range turns {
		found.Late = append(found.Late, ms(t.began.Sub(t.due)))
		at, ok := watch.at(t.sighting())
		if !ok {
			found.Unseen++
			continue
		}
		found.Took, found.Puts = append(found.Took, ms(at.Sub(t.began))), append(found.Puts, ms(t.put.Sub(t.began)))
	}
	for _, of := range []struct {
		pid    int
		before time.Duration
		to     *float64
	}{{s.daemon.cmd.Process.Pid, own, &found.CPU}, {s.sw.Pid(), vswitchd, &found.SwitchCPU}} {
		after, err := cpu(of.pid)
		if err != nil {
			return err
		}
		*of.to = (after - of.before).Seconds() / took.Seconds()
	}
	if found.memory, err = s.daemon.memory(); err != nil {
		return err
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	for _, r := range standing(turns) {
		if err := s.tell(ctx, r, true); err != nil {
			return err
		}
	}
	time.Sleep(afterwards)
	return s.agrees(ctx)
}

// watchDisk writes two pages now and then and waits for the disk after each, as bbolt does with every change that it commits,
// where the node's store is. What it returns ends it, and says how long that took each time.
func (s *site) watchDisk() func() ([]float64, error) {
	const pause, page = 100 * time.Millisecond, 4096
	end, ended := make(chan struct{}), make(chan struct{})
	var took []float64
	var failed error
	write := func(f *os.File) error {
		for i := range int64(2) {
			if _, err := f.WriteAt(make([]byte, page), i*page); err != nil {
				return err
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
		}
		return nil
	}
	go func() {
		defer close(ended)
		f, err := os.Create(s.path("disk"))
		if err != nil {
			failed = err
			return
		}
		defer f.Close()   //nolint:errcheck // nothing to lose
		failed = write(f) // so that it has its pages
		for failed == nil {
			select {
			case <-end:
				return
			case <-time.After(pause):
			}
			start := time.Now()
			failed = write(f)
			took = append(took, ms(time.Since(start)))
		}
	}()
	return func() ([]float64, error) {
		close(end)
		<-ended
		return took, failed
	}
}

// calm are the changes of the seconds in which this program, which sleeps until each is due, was hardly ever late itself:
// then the machine had time for tenetd, too. The first is how many seconds those are.
func (c changes) calm() (int, []float64) {
	const hardly = 5.0 // ms, 99 of 100
	seconds, took := 0, []float64{}
	if c.Unseen > 0 { // Took and Late do not go together
		return 0, took
	}
	for from := 0; from+changesPerSecond <= len(c.Took); from += changesPerSecond {
		if to := from + changesPerSecond; quantile(c.Late[from:to], 0.99) < hardly {
			seconds, took = seconds+1, append(took, c.Took[from:to]...)
		}
	}
	return seconds, took
}

// turns lets one endpoint come and another go in turn, each after a second or so.
func (s *site) turns(count int) []turn {
	var turns []turn
	lives := make([][]vnet.Remote, networksHere)
	here := s.peers.here()
	for i := range count {
		at := i % networksHere
		round := i / networksHere
		if len(lives[at]) > 4 && round%2 == 1 {
			turns = append(turns, turn{remote: lives[at][0], gone: true})
			lives[at] = lives[at][1:]
			continue
		}
		of := s.peers.ofNetwork()
		r := s.peers.endpoint(here[at], s.peers.nodeOf(here[at], round%of), "changes"+strconv.Itoa(i), firstNumber+of+1+round%30)
		turns = append(turns, turn{remote: r})
		lives[at] = append(lives[at], r)
	}
	return turns
}

// standing are the endpoints that the turns left.
func standing(turns []turn) []vnet.Remote {
	gone := map[vnet.EndpointID]bool{}
	for _, t := range turns {
		if t.gone {
			gone[t.remote.ID] = true
		}
	}
	var stay []vnet.Remote
	for _, t := range turns {
		if !t.gone && !gone[t.remote.ID] {
			stay = append(stay, t.remote)
		}
	}
	return stay
}

// A sighting is that a flow with the cookie came, or went.
type sighting struct {
	cookie uint64
	gone   bool
}

func (t turn) sighting() sighting {
	return sighting{pipeline.RemoteOwner(t.remote).Cookie(), t.gone}
}

// A flowWatch sees flows come and go in table Destination, where an endpoint has one: by OpenFlow's flow monitor, which
// ovs-vswitchd serves in the same turn of its main loop in which it changes them. Nothing is asked of the switch for it.
type flowWatch struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	seen map[sighting]time.Time
}

func (w *world) watchFlows() (*flowWatch, error) {
	f := &flowWatch{seen: map[sighting]time.Time{}}
	f.cmd = exec.Command("ovs-ofctl", "-O", "OpenFlow15", "monitor", "unix:"+w.sw.RunDir+"/"+ovsBridge+".mgmt", //nolint:noctx // ended by stop
		fmt.Sprintf("watch:!initial,table=%d", pipeline.Destination))
	f.cmd.Env, f.cmd.SysProcAttr = w.sw.Env(), &syscall.SysProcAttr{Setpgid: true}
	lines, err := f.cmd.StderrPipe() // where it writes at once, line by line
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		for scan := bufio.NewScanner(lines); scan.Scan(); {
			now := time.Now()
			s, ok := parseSighting(scan.Text())
			if !ok {
				continue
			}
			f.mu.Lock()
			f.seen[s] = now
			f.mu.Unlock()
		}
	}()
	return f, nil
}

func (f *flowWatch) stop() {
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait() // killed
}

func (f *flowWatch) at(s sighting) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.seen[s]
	return at, ok
}

// parseSighting reads a line as "event=ADDED table=50 cookie=0x12 …".
func parseSighting(line string) (sighting, bool) {
	var s sighting
	known := false
	for word := range strings.FieldsSeq(line) {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "event":
			s.gone, known = value == "DELETED", value == "DELETED" || value == "ADDED"
		case "cookie":
			cookie, err := strconv.ParseUint(value, 0, 64)
			s.cookie = cookie
			return s, known && err == nil
		}
	}
	return s, false
}

// delay is how much later than its maker, whom the switch answers, a flow is seen. The first ones are not waited for long:
// the watch may not have begun.
func (s *site) delay(ctx context.Context, watch *flowWatch) ([]float64, error) {
	var delays []float64
	const samples, base = 30, 0xbe << 56
	for i := uint64(1); len(delays) < samples; i++ {
		f := openflow.Flow{Table: pipeline.Destination, Priority: 1, Cookie: base | i, Match: openflow.Match{openflow.Metadata.Is(^i)}}
		if err := s.flows.Commit(ctx, []openflow.Change{openflow.AddFlow(f)}); err != nil {
			return nil, err
		}
		answered := time.Now()
		seen := time.Time{}
		for seen.IsZero() && time.Since(answered) < 200*time.Millisecond {
			time.Sleep(time.Millisecond)
			seen, _ = watch.at(sighting{base | i, false})
		}
		if err := s.flows.Commit(ctx, []openflow.Change{openflow.DeleteFlow(f)}); err != nil {
			return nil, err
		}
		const most = 100
		switch {
		case !seen.IsZero():
			delays = append(delays, ms(seen.Sub(answered)))
		case i > most:
			return nil, errors.New("ovs-ofctl does not tell of flows")
		}
	}
	return delays, nil
}
