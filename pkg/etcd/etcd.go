// Package etcd keeps a cluster's records in etcd.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Config says how to reach etcd.
type Config struct {
	Endpoints    []string
	CAFile       string
	CertFile     string
	KeyFile      string
	Username     string
	PasswordFile string
	Prefix       string
}

// Store is a cluster's records: see store.Store. It may be used from any goroutine.
type Store struct {
	Config
	client *clientv3.Client
}

const dialTimeout, keepAlive, callTimeout = 5 * time.Second, 3 * time.Second, 10 * time.Second

// Open returns the store. Nothing is dialled yet. vnet.ErrInvalid if the configuration, or a file it names, makes no sense.
func Open(c Config) (*Store, error) {
	if !strings.HasSuffix(c.Prefix, "/") {
		return nil, vnet.Invalidf("etcd.prefix %q: must end in a slash", c.Prefix)
	}
	config := clientv3.Config{
		Endpoints: c.Endpoints, Username: c.Username, DialTimeout: dialTimeout, DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAlive,
		Logger: zap.NewNop(), BackoffWaitBetween: 100 * time.Millisecond,
		// gRPC's own waits two minutes in the end; an etcd that is back is to be noticed.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: dialTimeout,
		})},
	}
	var err error
	if config.TLS, err = c.tls(); err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("etcd.passwordFile: %w", err))
		}
		config.Password = strings.TrimSpace(string(password))
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("etcd: %w", err))
	}
	return &Store{c, client}, nil
}

func (c Config) tls() (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" && c.KeyFile == "" {
		return nil, nil //nolint:nilnil // no TLS
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("etcd.caFile: %w", err))
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, vnet.Invalidf("etcd.caFile %s: no certificate in it", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("etcd.certFile, etcd.keyFile: %w", err))
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// Close ends all connections.
func (s *Store) Close() { _ = s.client.Close() }

// Client is etcd's own; keys have the prefix there.
func (s *Store) Client() *clientv3.Client { return s.client }

// Prefix is what all keys begin with.
func (s *Store) Prefix() string { return s.Config.Prefix }

// Error gives an error of etcd its kind and says whose it is; nil stays nil.
func (s *Store) Error(err error) error {
	if err == nil {
		return nil
	}
	where := strings.Join(s.Endpoints, ", ")
	var e rpctypes.EtcdError
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrInvalidAuthToken) && s.Username == "":
		return vnet.WithHint(vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("etcd %s: %w", where, err)), "etcd.username, etcd.passwordFile and the user's role, which must have the prefix %s", s.Config.Prefix)
	case errors.As(err, &e) && e.Code() == codes.InvalidArgument:
		return fmt.Errorf("etcd %s: %w", where, err)
	case strings.Contains(status.Convert(err).Message(), "tls:"), strings.Contains(status.Convert(err).Message(), "x509:"):
		return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("etcd %s: %w", where, err)), "etcd.caFile, etcd.certFile and etcd.keyFile of the node's configuration")
	}
	return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("etcd %s: %w", where, err)), "is etcd there, and has it a leader? etcdctl endpoint status")
}

// bound gives a call that has no deadline one.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}
