package etcdtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

func put(t *testing.T, c *clientv3.Client, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, key, "x"); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, c *clientv3.Client, key string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := c.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Kvs) == 1
}

func TestAMemberKeepsItsDataAndLeavesNothing(t *testing.T) {
	var pid int
	var dir string
	t.Run("member", func(t *testing.T) {
		c := etcdtest.Start(t)
		put(t, c.Client(), "a")
		c.Kill(0)
		c.Kill(0)
		c.Start(0)
		put(t, c.Client(), "b")
		c.Stop(0)
		c.Stop(0)
		c.Start(0)
		for _, key := range []string{"a", "b"} {
			if !has(t, c.Client(), key) {
				t.Errorf("%s is gone", key)
			}
		}
		c.Compact()
		if _, err := c.Client().Get(t.Context(), "a", clientv3.WithRev(2)); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("an old revision: %v", err)
		}
		pid, dir = c.Pid(0), c.Dir()
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("etcd %d: %v", pid, err)
		}
		c.Pause(0) // its end must not wait for it
	})
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("etcd %d lives: %v", pid, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s stands: %v", dir, err)
	}
}

func TestTwoOfThreeGoOn(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Members(3))
	if n := len(c.Endpoints()); n != 3 {
		t.Fatalf("%d endpoints", n)
	}
	first := c.Leader()
	c.Kill(first)
	second := c.Leader()
	if second == first {
		t.Error("a dead member leads")
	}
	put(t, c.Client(), "a")
	c.Kill(second)
	c.Start(first)
	c.Start(second)
	c.Leader()
	if !has(t, c.Client(), "a") {
		t.Error("a is gone")
	}
}

func TestUserReachesNoFurtherThanThePrefix(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Auth("/p/"))
	put(t, c.Client(), "/elsewhere")
	password, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	user, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints(), Logger: zap.NewNop(),
		Username: c.Username, Password: strings.TrimSpace(string(password)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	put(t, user, "/p/a")
	if _, err := user.Put(t.Context(), "/q/a", "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("outside the prefix: %v", err)
	}
}

func TestClientsSpeakTLS(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.TLS(), etcdtest.Auth("/p/"))
	put(t, c.Client(), "a")
	for _, file := range []string{c.CAFile, c.CertFile, c.KeyFile, c.PasswordFile} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if !strings.HasPrefix(c.Endpoints()[0], "https://") {
		t.Error(c.Endpoints())
	}
}

func TestAMemberLivesInANamespace(t *testing.T) {
	netnstest.Enter(t) // this thread; what grpc dials from others is outside
	if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		t.Fatal(err)
	}
	c := etcdtest.Start(t, etcdtest.NetNS(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())), etcdtest.Listen("127.0.0.1", "127.0.0.2"))
	put(t, c.Client(), "a")
	if n := len(c.Endpoints()); n != 2 {
		t.Errorf("%d endpoints", n)
	}
	outside, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := outside.Get(ctx, "a"); err == nil {
		t.Error("it is reached from outside")
	}
}
