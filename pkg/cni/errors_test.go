package cni_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestEachKindOfErrorHasItsCodeAndTheWholeText(t *testing.T) {
	foreign := types.NewError(42, "no lease", "server away")
	for _, test := range []struct {
		err  error
		want types.Error
	}{
		{vnet.Invalidf("bad"), types.Error{Code: 7, Msg: "bad"}},
		{vnet.NotFoundf("network x does not exist"), types.Error{Code: 7, Msg: "network x does not exist"}},
		{vnet.Existsf("taken"), types.Error{Code: 101, Msg: "taken"}},
		{fmt.Errorf("subnet s: %w", vnet.ErrExhausted), types.Error{Code: 100, Msg: "subnet s: exhausted"}},
		{fmt.Errorf("store: %w", vnet.ErrUnavailable), types.Error{Code: 11, Msg: "store: unavailable"}},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), types.Error{Code: 11, Msg: "wait: context deadline exceeded"}},
		{fmt.Errorf("wait: %w", context.Canceled), types.Error{Code: 11, Msg: "wait: context canceled"}},
		{fmt.Errorf("record k: %w", vnet.ErrCorrupt), types.Error{Code: 5, Msg: "record k: corrupt"}},
		{cni.NetNSError(vnet.Invalidf("namespace /x is gone")), types.Error{Code: 8, Msg: "namespace /x is gone"}},
		{errors.New("who knows"), types.Error{Code: 999, Msg: "who knows"}},
		{fmt.Errorf("a: %w", vnet.WithHint(vnet.Invalidf("bad"), "do that")), types.Error{Code: 7, Msg: "a: bad", Details: "do that"}},
		{fmt.Errorf("ipam plugin x: %w", foreign), types.Error{Code: 42, Msg: "ipam plugin x: no lease; server away"}},
		{foreign, *foreign},
		{errors.Join(vnet.Existsf("taken"), errors.New("undo: stuck")), types.Error{Code: 101, Msg: "taken\nundo: stuck"}},
	} {
		got, ok := errors.AsType[*types.Error](cni.Error(test.err))
		if !ok {
			t.Errorf("%v: not a CNI error", test.err)
			continue
		}
		if diff := cmp.Diff(test.want, *got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.err, diff)
		}
	}
	if err := cni.Error(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	if err := cni.NetNSError(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
}
