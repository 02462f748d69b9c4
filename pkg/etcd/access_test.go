package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// file makes a file with a content and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantRefused checks that reading and writing are refused, not left without an answer, and say why.
func wantRefused(t *testing.T, c etcd.Config, want, hint string) {
	t.Helper()
	s := open(t, c)
	for what, err := range map[string]error{
		"View":   s.View(t.Context(), storetest.Wants("a", "")),
		"Update": s.Update(t.Context(), storetest.Put("a", "x")),
	} {
		if !errors.Is(err, vnet.ErrInvalid) || errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), c.Endpoints[0]) || !strings.Contains(vnet.Hint(err), hint) {
			t.Errorf("%s: got %v (hint %q), want an ErrInvalid with %q and hint %q", what, err, vnet.Hint(err), want, hint)
		}
	}
}

func TestTLSWithCertificates(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.TLS())
	put(t, open(t, configOf(c)), "a", "x")

	config := configOf(c)
	config.CertFile, config.KeyFile = "", ""
	wantRefused(t, config, "tls: ", "check caFile, certFile and keyFile")

	config = configOf(c)
	config.CAFile = ""
	wantRefused(t, config, "x509: ", "check caFile, certFile and keyFile")

	stranger := etcdtest.Start(t, etcdtest.TLS())
	config = configOf(c)
	config.CertFile, config.KeyFile = stranger.CertFile, stranger.KeyFile
	wantRefused(t, config, "tls: ", "check caFile, certFile and keyFile")
}

func TestMixingUpHTTPAndHTTPSIsHintedAt(t *testing.T) {
	for _, test := range []struct {
		opts     []etcdtest.Option
		old, new string
	}{
		{nil, "http:", "https:"},
		{[]etcdtest.Option{etcdtest.TLS()}, "https:", "http:"},
	} {
		c := etcdtest.Start(t, test.opts...)
		endpoint := strings.Replace(c.Endpoints()[0], test.old, test.new, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := open(t, etcd.Config{Endpoints: []string{endpoint}}).View(ctx, storetest.Wants("a", ""))
		if err == nil || !strings.Contains(vnet.Hint(err), "speak TLS") {
			t.Errorf("%s: got %v (hint %q)", endpoint, err, vnet.Hint(err))
		}
	}
}

func TestUserOfThePrefix(t *testing.T) {
	const prefix = "/tenet/v1/"
	c := etcdtest.Start(t, etcdtest.Auth(prefix))
	s := open(t, configOf(c))
	storetest.Update(t, s, storetest.Put("a/1", "x"), storetest.Put("a/2", "x"), storetest.Put("vnis/1", "x"))
	storetest.Update(t, s, func(tx store.Tx) error {
		storetest.Keys(t, tx, "", 100)
		return errors.Join(tx.Delete("a/1"), tx.Delete("vnis/1"))
	})
	storetest.WantAll(t, s, map[string]string{"a/2": "x"})

	elsewhere := configOf(c)
	elsewhere.Prefix = "/tenet/v2/"
	wantRefused(t, elsewhere, "permission denied", "grant-permission ROLE --prefix=true readwrite /tenet/v2/")
	if r, err := c.Client().Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly()); err != nil {
		t.Error(err)
	} else {
		for _, kv := range r.Kvs {
			if !strings.HasPrefix(string(kv.Key), prefix) {
				t.Errorf("%s was written", kv.Key)
			}
		}
	}

	wrong := configOf(c)
	wrong.PasswordFile = file(t, "guessed\n")
	wantRefused(t, wrong, "authentication failed", `user "tenet" is not known, or has another password`)
	nobody := configOf(c)
	nobody.Username, nobody.PasswordFile = "", ""
	wantRefused(t, nobody, "user name is empty", "this etcd wants a user")

	// A member that was started again knows no token that it had given.
	c.Kill(0)
	c.Start(0)
	put(t, s, "a/3", "x")
	if r, err := c.Client().Get(t.Context(), prefix+"a/3"); err != nil || len(r.Kvs) != 1 {
		t.Errorf("who may do everything gets %v, %v", r, err)
	}
	storetest.Update(t, s, storetest.Wants("a/3", "x"), storetest.Put("a/4", "x"))
}

func TestUserAndCertificate(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.TLS(), etcdtest.Auth("/tenet/v1/"))
	put(t, open(t, configOf(c)), "a", "x")
	byName := configOf(c) // the certificate's
	byName.Username, byName.PasswordFile = "", ""
	storetest.Update(t, open(t, byName), storetest.Wants("a", "x"), storetest.Put("a", "y"))

	wrong := configOf(c) // though the certificate would do
	wrong.PasswordFile = file(t, "guessed\n")
	wantRefused(t, wrong, "authentication failed", `user "tenet" is not known, or has another password`)
}

func TestAnEtcdWithoutUsersTakesAny(t *testing.T) {
	config := configOf(etcdtest.Start(t))
	config.Username, config.PasswordFile = "u", file(t, "p")
	put(t, open(t, config), "a", "x")
}

func TestConfigThatMakesNoSenseIsRefused(t *testing.T) {
	ok := []string{"https://127.0.0.1:2379"}
	none, junk := filepath.Join(t.TempDir(), "none"), file(t, "junk")
	for _, test := range []struct {
		config etcd.Config
		want   string
	}{
		{etcd.Config{}, "no endpoints"},
		{etcd.Config{Endpoints: []string{"127.0.0.1:2379"}}, `endpoint "127.0.0.1:2379"`},
		{etcd.Config{Endpoints: []string{"ftp://h:1"}}, `endpoint "ftp://h:1"`},
		{etcd.Config{Endpoints: []string{"https://h"}}, `endpoint "https://h"`},
		{etcd.Config{Endpoints: []string{"https://h:1/x"}}, `endpoint "https://h:1/x"`},
		{etcd.Config{Endpoints: []string{"https://h:1", "http://h:1"}}, "both http and https"},
		{etcd.Config{Endpoints: []string{"http://h:1"}, CAFile: junk}, "without TLS"},
		{etcd.Config{Endpoints: ok, Prefix: "/x"}, `prefix "/x"`},
		{etcd.Config{Endpoints: ok, CAFile: none}, none},
		{etcd.Config{Endpoints: ok, CAFile: junk}, junk},
		{etcd.Config{Endpoints: ok, CertFile: none, KeyFile: junk}, none},
		{etcd.Config{Endpoints: ok, CertFile: junk, KeyFile: junk}, junk},
		{etcd.Config{Endpoints: ok, CertFile: junk}, "both certFile and keyFile"},
		{etcd.Config{Endpoints: ok, Username: "u"}, "both username and passwordFile"},
		{etcd.Config{Endpoints: ok, PasswordFile: junk}, "both username and passwordFile"},
		{etcd.Config{Endpoints: ok, Username: "u", PasswordFile: none}, none},
		{etcd.Config{Endpoints: ok, Username: "u", PasswordFile: file(t, "\n")}, "empty"},
	} {
		_, err := etcd.Open(test.config)
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(fmt.Sprint(err, " ", vnet.Hint(err)), test.want) || vnet.Hint(err) == "" {
			t.Errorf("%+v: got %v (hint %q), want an ErrInvalid with %q", test.config, err, vnet.Hint(err), test.want)
		}
	}
}
