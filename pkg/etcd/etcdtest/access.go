package etcdtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	username     = "tenet"
	password     = "in-the-test"
	root         = "root" // the user and the role that etcd's own auth insists on
	rootPassword = "of-the-test"
)

// certify makes an authority, and certificates of the members and of a client.
func (c *Cluster) certify() {
	c.tb.Helper()
	must := func(err error) {
		c.tb.Helper()
		if err != nil {
			c.tb.Fatalf("etcdtest: certificates: %v", err)
		}
	}
	write := func(name, kind string, der []byte) string {
		c.tb.Helper()
		must(os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return c.path(name)
	}
	newKey := func() *ecdsa.PrivateKey {
		c.tb.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return key
	}

	authority, authorityKey := template(1, "etcdtest"), newKey()
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	must(err)
	c.CAFile = write("ca.crt", "CERTIFICATE", der)

	c.issue = func(t *x509.Certificate, name string) (string, string) {
		c.tb.Helper()
		key := newKey()
		der, err := x509.CreateCertificate(rand.Reader, t, authority, key.Public(), authorityKey)
		must(err)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		must(err)
		return write(name+".crt", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", keyDER)
	}
	server := template(2, "etcd")
	for _, m := range c.members {
		for _, addr := range m.addrs {
			server.IPAddresses = append(server.IPAddresses, net.ParseIP(addr))
		}
	}
	c.issue(server, "server")
	c.CertFile, c.KeyFile = c.ClientCertificate("client", 24*time.Hour)
}

// ClientCertificate makes a certificate of the Cluster's user that is good for so long, and returns the paths of it and its key. One
// of that name is overwritten.
func (c *Cluster) ClientCertificate(name string, d time.Duration) (string, string) {
	c.tb.Helper()
	t := template(3, username)
	t.NotAfter = time.Now().Add(d)
	return c.issue(t, name)
}

func template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
		// etcd's gateway is a client of its own server, with the same certificate.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// admit makes the Cluster's user, then the one who may do everything, and turns etcd's auth on.
func (c *Cluster) admit() {
	c.tb.Helper()
	c.Username, c.PasswordFile = username, c.path("password")
	if err := os.WriteFile(c.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
		c.tb.Fatalf("etcdtest: %v", err)
	}
	end := clientv3.GetPrefixRangeEnd(c.options.prefix)
	ctx := c.tb.Context()
	var err error
	step := func(_ any, e error) {
		if err == nil {
			err = e
		}
	}
	step(c.client.RoleAdd(ctx, username))
	step(c.client.RoleGrantPermission(ctx, username, c.options.prefix, end, clientv3.PermissionType(clientv3.PermReadWrite)))
	step(c.client.UserAdd(ctx, username, password))
	step(c.client.UserGrantRole(ctx, username, username))
	step(c.client.RoleAdd(ctx, root))
	step(c.client.UserAdd(ctx, root, rootPassword))
	step(c.client.UserGrantRole(ctx, root, root))
	step(c.client.AuthEnable(ctx))
	if err != nil {
		c.tb.Fatalf("etcdtest: auth: %v", err)
	}
	_ = c.client.Close()
	c.client = c.dial(root, rootPassword)
}

// dial makes a client that also reaches members in other network namespaces.
func (c *Cluster) dial(user, pass string) *clientv3.Client {
	c.tb.Helper()
	config := clientv3.Config{
		Endpoints: c.Endpoints(), Username: user, Password: pass,
		DialTimeout: patience, Logger: zap.NewNop(),
		// gRPC would wait for a second before it tries again to reach a member that has just been started.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: time.Second,
		})},
	}
	if c.options.tls {
		config.TLS = c.tlsConfig()
	}
	if len(c.options.netns) > 0 {
		config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return c.owner(addr).keeper.dial(ctx, addr)
		}))
	}
	client, err := clientv3.New(config)
	if err != nil {
		c.tb.Fatalf("etcdtest: %v", err)
	}
	return client
}

// owner returns the member at an address and port.
func (c *Cluster) owner(addr string) *member {
	for _, m := range c.members {
		for _, a := range m.addrs {
			if net.JoinHostPort(a, clientPort) == addr {
				return m
			}
		}
	}
	return c.members[0]
}

func (c *Cluster) tlsConfig() *tls.Config {
	c.tb.Helper()
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		c.tb.Fatalf("etcdtest: %v", err)
	}
	own, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		c.tb.Fatalf("etcdtest: %v", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}
}
