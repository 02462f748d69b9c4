// Package ovs reads and writes one Open vSwitch's rows: bridges and ports. It knows no tenant.
//
// Every change is one OVSDB transaction (RFC 7047), and every wait for ovs-vswitchd is one "wait" operation that
// ovsdb-server answers: nothing is polled and nothing is monitored. Operations and rows are written in libovsdb's
// notation (package ovsdb of that module). Its client is not used: it fetches the schema, builds a cache and links
// metrics and validation. Measured: 11 ms more of process start, 5 ms for the first connection where this package
// takes 1.5, 12 MB; a process that lives for one ADD of 12 ms has no such time.
//
// A row is ours if its external_ids has the key OwnerKey. No other row is ever changed; plugging a port does add a
// reference to the bridge's row, which must be ours as well.
package ovs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// OwnerKey is the key in external_ids that marks a row as ours; its value names the owner.
const OwnerKey = "tenet"

// Kinds of error. Everything this package returns wraps one of these, or is the caller's mistake.
var (
	// ErrUnavailable: ovsdb-server or ovs-vswitchd cannot be reached, is silent, or did not do its part in time.
	// The same call may succeed later. A change may have been written all the same.
	ErrUnavailable = errors.New("open vswitch unavailable")
	// ErrNotFound: there is no such bridge, or no such port in that bridge.
	ErrNotFound = errors.New("not found")
	// ErrNotOurs: a row of that name exists and lacks OwnerKey, or belongs to another owner. It was not touched.
	ErrNotOurs = errors.New("not ours")
	// ErrDevice: ovs-vswitchd refused the port, mostly because there is no such link. The text is its own.
	ErrDevice = errors.New("refused by ovs-vswitchd")
	// ErrRefused: the daemon answered a command, and that it will not.
	ErrRefused = errors.New("refused")
)

// maxWait bounds a call whose context has no deadline of its own.
const maxWait = time.Minute

const (
	database       = "Open_vSwitch" // name of the database and of its root table, see ovs-vswitchd.conf.db(5)
	tableRoot      = "Open_vSwitch"
	tableBridge    = "Bridge"
	tablePort      = "Port"
	tableInterface = "Interface"
)

// A Switch is a connection to the database of one Open vSwitch. Its methods may be called concurrently.
//
// It does not reconnect. When ovsdb-server ends, every call returns ErrUnavailable and Done is closed: dial again.
type Switch struct {
	runDir string
	conn   *conn
	root   string // uuid of the one row of table Open_vSwitch
}

// Dial connects to the database of the Open vSwitch whose run directory is runDir (/run/openvswitch on most
// systems), at runDir/db.sock. It returns when ovsdb-server has answered; whatever is wrong is ErrUnavailable and
// names the socket.
func Dial(ctx context.Context, runDir string) (*Switch, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	path := filepath.Join(runDir, "db.sock")
	c, err := dial(ctx, "ovsdb-server", path)
	if err != nil {
		return nil, err
	}
	s := &Switch{runDir: runDir, conn: c}
	res, err := s.transact(ctx, ovsdb.Operation{Op: ovsdb.OperationSelect, Table: tableRoot, Columns: []string{"_uuid"}})
	if err != nil {
		s.Close()
		return nil, err
	}
	if len(res[0].Rows) != 1 {
		s.Close()
		return nil, fmt.Errorf("%s has %d rows in table Open_vSwitch where ovs-vsctl init makes one: %w",
			path, len(res[0].Rows), ErrUnavailable)
	}
	s.root = res[0].Rows[0].uuid()
	return s, nil
}

// Close ends the connection. Calls that wait return ErrUnavailable.
func (s *Switch) Close() { s.conn.close(errClosed) }

// Done is closed when the connection has ended, by Close or because ovsdb-server did.
func (s *Switch) Done() <-chan struct{} { return s.conn.done }

// RunDir is the run directory that Dial was given.
func (s *Switch) RunDir() string { return s.runDir }

// bound gives a context without a deadline one.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, maxWait)
}
