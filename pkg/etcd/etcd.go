// Package etcd keeps a cluster's records in etcd, which all of its nodes share: Store is a store.Store, and Mirror
// follows what changes in it.
//
// A transaction is optimistic. Its closure reads at one revision (snapshot.go) and its writes are kept back (tx.go)
// until one etcd Txn makes them, if nothing that was read has changed since (commit.go); else the closure runs again.
// The many small records of numbers in use are packed, 64 to an etcd key (pack.go): etcd takes no more than 128
// changes in a Txn. A Txn whose answer was lost is not guessed about (settle.go).
package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Store is the records below one prefix of an etcd. It may be used from many goroutines.
//
// What the methods return, besides the closure's own error, unchanged: vnet.ErrUnavailable if etcd does not answer
// before ctx ends, which without a deadline is in 10 seconds; vnet.ErrInvalid if it refuses the user or the
// certificate; vnet.ErrExhausted if a transaction is larger than etcd takes. Each names the endpoints.
type Store struct {
	client *clientv3.Client
	prefix string
	name   string // where it is, for errors
	user   string
	past   *past
}

var _ store.Store = (*Store)(nil)

// Open returns the store that c names. It dials nothing yet: an etcd that is not there is told by the first
// transaction. vnet.ErrInvalid if c makes no sense or a file it names cannot be used.
func Open(c Config) (*Store, error) { return open(c) }

func open(c Config, more ...grpc.DialOption) (*Store, error) {
	settings, err := c.settings()
	if err != nil {
		return nil, err
	}
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	members, past := newMembers(c.Endpoints), &past{}
	settings.Endpoints = members.first()
	settings.DialOptions = slices.Concat(settings.DialOptions, newCaller(members, past, c.Username, password).options(), more)
	client, err := clientv3.New(settings)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w: %w", vnet.ErrInvalid, err)
	}
	members.of(client)
	return &Store{
		client: client, prefix: c.prefix(),
		name: "etcd at " + strings.Join(c.Endpoints, ", "), user: c.Username,
		past: past,
	}, nil
}

// Close ends the connections. What is under way fails.
func (s *Store) Close() { _ = s.client.Close() } // its error is that it is closed

// Client is for what a transaction cannot do, such as watches and leases. Its keys carry the prefix. It knows of one
// member at a time: when that does not answer what it is asked, the next one is used, by watches and leases too. Who
// only waits for what they bring is to ask something now and then. Keys that are deleted through it, or by the end of a lease, are not missed by transactions that have read them with Get; those
// that have read them with Range notice only new and changed ones.
func (s *Store) Client() *clientv3.Client { return s.client }

// Prefix is what every key of the store begins with in etcd.
func (s *Store) Prefix() string { return s.prefix }

// Update runs fn until what it wrote is committed. See store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	_, err := s.Commit(ctx, fn)
	return err
}
