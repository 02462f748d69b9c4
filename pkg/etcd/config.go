package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Config says how to reach etcd; it is the part "etcd" of the node's configuration.
type Config struct {
	// Endpoints are the members, as https://HOST:PORT, or http:// for an etcd without TLS.
	Endpoints []string `json:"endpoints"`
	// CAFile is who has signed the members' certificates, if not one of those whom the machine trusts anyway.
	CAFile string `json:"caFile"`
	// CertFile and KeyFile are what to show to an etcd that asks for a client's certificate.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	// Username and PasswordFile are for an etcd with users. A line end after the password is not part of it.
	Username     string `json:"username"`
	PasswordFile string `json:"passwordFile"`
	// Prefix is where tenet's keys are, "/tenet/v1/" if empty.
	Prefix string `json:"prefix"`
}

const defaultPrefix = "/tenet/v1/"

// How soon a member that does not answer is left for another.
const (
	// gRPC pings a silent member no more often than this (internal.KeepaliveMinPingTime), and etcd closes the
	// connection to whoever pings more often than every 5 s (--grpc-keepalive-min-time).
	pingTime    = 10 * time.Second
	pingTimeout = 3 * time.Second // also of what was sent and not acknowledged (TCP_USER_TIMEOUT)
	dialTimeout = 3 * time.Second
	dialBackoff = 100 * time.Millisecond
	// The client's own interceptor tries again, and hides why; for a transaction, that is insist's part.
	clientRetries = 3
)

func (c Config) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

// settings checks c, reads its files and returns what the client is to be made with.
func (c Config) settings() (clientv3.Config, error) {
	settings := clientv3.Config{
		Logger:               zap.NewNop(),
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    pingTime,
		DialKeepAliveTimeout: pingTimeout,
		MaxUnaryRetries:      clientRetries,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: dialBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: dialTimeout},
			MinConnectTimeout: dialTimeout,
		})},
	}
	if !strings.HasSuffix(c.prefix(), "/") {
		return settings, vnet.WithHint(vnet.Invalidf("etcd: prefix %q does not end in a slash", c.Prefix), "such as %s", defaultPrefix)
	}
	scheme, err := c.scheme()
	if err != nil {
		return settings, err
	}
	settings.Endpoints = c.Endpoints
	if scheme == "https" {
		if settings.TLS, err = c.tls(); err != nil {
			return settings, err
		}
		settings.DialOptions = append(settings.DialOptions, grpc.WithTransportCredentials(newTLSCredentials(settings.TLS)))
	}
	return settings, nil
}

// scheme returns what all endpoints begin with: the client would take that of the first for all.
func (c Config) scheme() (string, error) {
	if len(c.Endpoints) == 0 {
		return "", vnet.WithHint(vnet.Invalidf("etcd: no endpoints"), "name its members, such as https://10.0.0.1:2379")
	}
	scheme := ""
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return "", vnet.WithHint(vnet.Invalidf("etcd: endpoint %q", e), "an endpoint is https://HOST:PORT, or http:// without TLS")
		}
		if scheme != "" && u.Scheme != scheme {
			return "", vnet.WithHint(vnet.Invalidf("etcd: endpoints of both http and https"), "all members take TLS, or none")
		}
		scheme = u.Scheme
	}
	if scheme == "http" && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "") {
		return "", vnet.WithHint(vnet.Invalidf("etcd: certificates for an endpoint without TLS"), "name the endpoints https://, or no caFile, certFile and keyFile")
	}
	return scheme, nil
}

func (c Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, unusable("caFile", c.CAFile, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, unusable("caFile", c.CAFile, errors.New("no certificate in it"))
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, vnet.WithHint(vnet.Invalidf("etcd: a certificate needs its key"), "name both certFile and keyFile, or neither")
	}
	if c.CertFile != "" {
		own, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, unusable("certFile and keyFile", c.CertFile+" and "+c.KeyFile, err)
		}
		t.Certificates = []tls.Certificate{own}
	}
	return t, nil
}

func (c Config) password() (string, error) {
	if (c.Username == "") != (c.PasswordFile == "") {
		return "", vnet.WithHint(vnet.Invalidf("etcd: a user needs a password"), "name both username and passwordFile, or neither")
	}
	if c.Username == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", unusable("passwordFile", c.PasswordFile, err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" {
		return "", unusable("passwordFile", c.PasswordFile, errors.New("it is empty"))
	}
	return password, nil
}

// unusable is the error of a file that the configuration names.
func unusable(what, path string, err error) error {
	return vnet.WithHint(vnet.Invalidf("etcd: %s: %v", what, err), "see %s", path)
}
