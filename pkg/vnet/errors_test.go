package vnet_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestKindSurvivesEveryWrapping(t *testing.T) {
	for want, err := range map[error]error{
		vnet.ErrInvalid:     vnet.Invalidf("tenant %q", "x"),
		vnet.ErrExists:      vnet.Existsf("vni %d", 1),
		vnet.ErrNotFound:    vnet.NotFoundf("network %s", "n"),
		vnet.ErrUnavailable: vnet.OfKind(vnet.ErrUnavailable, errors.New("no answer")),
	} {
		text := err.Error()
		err = vnet.WithHint(err, "try %s", "this")
		if err.Error() != text {
			t.Errorf("a hint changed %q to %q", text, err)
		}
		if err = fmt.Errorf("outer: %w", err); !errors.Is(err, want) || err.Error() != "outer: "+text {
			t.Errorf("%v is not a %v any more", err, want)
		}
		if got := vnet.Hint(err); got != "try this" {
			t.Errorf("hint of %v is %q", err, got)
		}
	}
}

func TestOutermostHintIsTheOneShown(t *testing.T) {
	err := vnet.WithHint(errors.New("broken"), "inner")
	err = fmt.Errorf("step: %w", err)
	if got := vnet.Hint(vnet.WithHint(err, "outer")); got != "outer" {
		t.Errorf("got %q", got)
	}
	if got := vnet.Hint(errors.Join(errors.New("first"), err)); got != "inner" {
		t.Errorf("of joined errors: got %q", got)
	}
	if got := vnet.Hint(errors.New("bare")) + vnet.Hint(nil); got != "" {
		t.Errorf("a hint from nowhere: %q", got)
	}
}

func TestNoErrorStaysNone(t *testing.T) {
	if err := vnet.OfKind(vnet.ErrInvalid, nil); err != nil {
		t.Errorf("OfKind made %v of nil", err)
	}
	if err := vnet.WithHint(nil, "hint"); err != nil {
		t.Errorf("WithHint made %v of nil", err)
	}
}
