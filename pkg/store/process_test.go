package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Other processes are this test program, run again with a job and a store's directory.
const jobEnv = "TENET_STORE_TEST_JOB"

func TestMain(m *testing.M) {
	job, dir, found := strings.Cut(os.Getenv(jobEnv), " ")
	if !found {
		os.Exit(m.Run())
	}
	if err := jobs[job](store.OpenBolt(dir)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

const turns = 40

var jobs = map[string]func(*store.Bolt) error{
	// count adds one to a counter, again and again.
	"count": func(s *store.Bolt) error {
		for range turns {
			if err := s.Update(context.Background(), func(tx store.Tx) error { return increment(tx, "counter") }); err != nil {
				return err
			}
		}
		return nil
	},
	// write writes pairs of records for ever, each pair in one transaction.
	"write": func(s *store.Bolt) error {
		for i := 0; ; i++ {
			value := strings.Repeat("x", i%2000) + strconv.Itoa(i)
			err := s.Update(context.Background(), inTurn(put(fmt.Sprintf("left/%d", i%50), value), put(fmt.Sprintf("right/%d", i%50), value)))
			if err != nil {
				return err
			}
			fmt.Println(i)
		}
	},
	// fill may write no file longer than 64 KiB.
	"fill": func(s *store.Bolt) error {
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}); err != nil {
			return err
		}
		err := s.Update(context.Background(), put("big", strings.Repeat("x", 1<<17)))
		if !errors.Is(err, vnet.ErrUnavailable) {
			return fmt.Errorf("got %w, want an ErrUnavailable", err)
		}
		return s.View(context.Background(), inTurn(wants("a", "x"), wants("big", "")))
	},
}

// start runs a job in another process.
func start(t *testing.T, job string, s *store.Bolt) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	dir := strings.TrimSuffix(s.Path(), "/node.db")
	cmd.Env = append(os.Environ(), jobEnv+"="+job+" "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// finish waits for a job and passes on what it complains of.
func finish(t *testing.T, cmd *exec.Cmd, out *bufio.Scanner) {
	t.Helper()
	for out.Scan() {
		t.Error(out.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTwoProcessesFightForOneStoreAndNothingIsLost(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	one, oneOut := start(t, "count", s)
	two, twoOut := start(t, "count", s)
	finish(t, one, oneOut)
	finish(t, two, twoOut)
	wantAll(t, s, map[string]string{"counter": strconv.Itoa(2 * turns)})
}

func TestStoreSurvivesKillMinusNine(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	for round := range 8 {
		cmd, out := start(t, "write", s)
		last := ""
		for range 5 + 7*round {
			if !out.Scan() {
				t.Fatal("the writer ended")
			}
			last = out.Text()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		done, err := strconv.Atoi(last)
		if err != nil {
			t.Fatal(err)
		}
		view(t, s, func(tx store.Tx) error {
			for i := range 50 {
				left, right := tx.Get(fmt.Sprintf("left/%d", i)), tx.Get(fmt.Sprintf("right/%d", i))
				if string(left) != string(right) {
					t.Errorf("half of transaction %d was kept", i)
				}
				if left == nil && i <= done {
					t.Errorf("transaction %d was committed and is gone", i)
				}
			}
			return nil
		})
		update(t, s, put("round", strconv.Itoa(round)))
	}
}

func TestFullDiskIsUnavailableAndKeepsWhatWasThere(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"))
	cmd, out := start(t, "fill", s)
	finish(t, cmd, out)
	wantAll(t, s, map[string]string{"a": "x"})
}
