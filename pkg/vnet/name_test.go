package vnet_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestNamesThatAreAccepted(t *testing.T) {
	for _, name := range []string{"a", "0", "blue", "Blue-1", "kube-system", "a_b.c", strings.Repeat("x", 63)} {
		if err := errors.Join(vnet.TenantName(name).Validate(), vnet.NetworkName(name).Validate()); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNamesThatAreRefusedSayWhy(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"", "tenant is missing"},
		{strings.Repeat("x", 64), "64 characters: at most 63"},
		{"a/b", `character "/" at 2`},
		{"a b", `character " " at 2`},
		{"-a", `character "-" at 1`},
		{".", `character "." at 1`},
		{"..", `character "." at 1`},
		{"a\x00", `character "\x00" at 2`},
		{"a\n", `character "\n" at 2`},
		{"bläu", "at 3"},
	} {
		err := vnet.TenantName(test.name).Validate()
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want an ErrInvalid with %q", test.name, err, test.want)
		}
	}
}
