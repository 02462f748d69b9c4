// Package etcdtest starts a private etcd for a test: real members, alone or three, in directories and at addresses of
// their own, ended and removed when the test ends.
//
// A machine without the program etcd skips the test, unless the environment variable TENET_REQUIRE names "etcd": then
// the test fails, so that a skip cannot pass for a run.
package etcdtest

import (
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// patience bounds every wait of this package. Nothing waits it out unless it is broken.
const patience = 60 * time.Second

// A Cluster is one private etcd. What goes wrong in its methods fails the test, so call them from the test's own
// goroutine. Members are numbered from 0.
type Cluster struct {
	// CAFile, CertFile and KeyFile are what a client of a Cluster with TLS shows and trusts. The certificate's common
	// name is Username.
	CAFile, CertFile, KeyFile string
	// Username and PasswordFile are a user of a Cluster with Auth whose role reaches no further than the prefix.
	Username, PasswordFile string

	tb      testing.TB
	options options
	dir     string
	members []*member
	client  *clientv3.Client
	issue   func(t *x509.Certificate, name string) (cert, key string) // of a Cluster with TLS
}

// An Option changes what Start starts.
type Option func(*options)

type options struct {
	members int
	tls     bool
	auth    bool
	prefix  string
	netns   []string
	listen  []string
}

// Members makes the cluster one of n members, 1 if not told.
func Members(n int) Option { return func(o *options) { o.members = n } }

// TLS makes clients speak TLS, with certificates of their own.
func TLS() Option { return func(o *options) { o.tls = true } }

// Auth makes clients say who they are. The Cluster's user may read and write the keys below prefix and no others.
func Auth(prefix string) Option { return func(o *options) { o.auth, o.prefix = true, prefix } }

// NetNS runs the members in the network namespaces at these paths (as /run/netns/NAME): all in the one, or each in its
// own. The loopback must be up there unless Listen names other addresses. It needs root.
func NetNS(path ...string) Option { return func(o *options) { o.netns = path } }

// Listen makes the only member listen on all of these IP addresses, or each of several on its own, which is then where
// the others find it too. Without it members are at addresses of the loopback that nobody else has.
func Listen(addr ...string) Option { return func(o *options) { o.listen = addr } }

// Start starts a cluster and returns when all members work. tb's cleanup ends it; if the test failed, the ends of the
// members' logs are shown.
func Start(tb testing.TB, opts ...Option) *Cluster {
	tb.Helper()
	o := options{members: 1}
	for _, opt := range opts {
		opt(&o)
	}
	require(tb, o)
	c := &Cluster{tb: tb, options: o, dir: dataDir(tb, o.members)}
	tb.Cleanup(c.end)
	c.place()
	if o.tls {
		c.certify()
	}
	for _, m := range c.members {
		c.launch(m)
	}
	c.client = c.dial("", "")
	for _, m := range c.members {
		c.ready(m)
	}
	if o.auth {
		c.admit()
	}
	return c
}

// Endpoints returns the URLs at which clients reach the members, in their order.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, c.urls(m)...)
	}
	return all
}

// Dir holds the members' data and logs, and the certificates.
func (c *Cluster) Dir() string { return c.dir }

// Client may do everything: it is for what a test does or looks at behind the back of whom it tests.
func (c *Cluster) Client() *clientv3.Client { return c.client }

// Compact forgets all revisions but the present one.
func (c *Cluster) Compact() {
	c.tb.Helper()
	ctx := c.tb.Context()
	now, err := c.client.Get(ctx, "/")
	if err == nil {
		_, err = c.client.Compact(ctx, now.Header.GetRevision(), clientv3.WithCompactPhysical())
	}
	if err != nil {
		c.tb.Fatalf("etcdtest: compact: %v", err)
	}
}

// Wait calls cond every few milliseconds until it is true, and fails the test, saying what was waited for, if that
// does not happen in a minute. It is what tests use instead of sleeping.
func Wait(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	tb.Fatalf("waited for %s in vain", what)
}

// require skips or fails the test when the machine lacks what it needs.
func require(tb testing.TB, o options) {
	tb.Helper()
	missing := func(need, why string) {
		tb.Helper()
		if slices.Contains(strings.Split(os.Getenv("TENET_REQUIRE"), ","), need) {
			tb.Fatalf("%s, and TENET_REQUIRE has %q", why, need)
		}
		tb.Skip(why)
	}
	if _, err := exec.LookPath("etcd"); err != nil {
		missing("etcd", "etcd is not installed")
	}
	if len(o.netns) > 0 && os.Geteuid() != 0 {
		missing("netns", "network namespaces need root")
	}
	for _, addr := range o.listen {
		if net.ParseIP(addr) == nil {
			tb.Fatalf("etcdtest: Listen takes IP addresses, not %q", addr)
		}
	}
	if n := len(o.listen); n > 0 && o.members > 1 && n != o.members {
		tb.Fatalf("etcdtest: %d addresses for %d members", n, o.members)
	}
	if n := len(o.netns); n > 1 && n != o.members {
		tb.Fatalf("etcdtest: %d network namespaces for %d members", n, o.members)
	}
}

// dataDir makes the directory of the members' data: in memory if there is room, as etcd waits for the disk with every
// change. A member allots itself two files of 64 MB.
func dataDir(tb testing.TB, members int) string {
	tb.Helper()
	const memory = "/dev/shm"
	parent := ""
	var st unix.Statfs_t
	if err := unix.Statfs(memory, &st); err == nil && st.Bavail*uint64(st.Bsize) > uint64(members)*512<<20 {
		parent = memory
	}
	dir, err := os.MkdirTemp(parent, "tenet-etcd") //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("etcdtest: %v", err)
	}
	return dir
}
