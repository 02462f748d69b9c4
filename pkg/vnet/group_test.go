package vnet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestAGroupIsTransparentAndClosedUnlessItSaysOtherwise(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`{"tenant":"blue","name":"fw"}`, `{"tenant":"blue","name":"fw","mode":"transparent","onFailure":"closed"}`},
		{`{"tenant":"blue","name":"nat","mode":"rewriting","onFailure":"open","probe":{}}`, `{"tenant":"blue","name":"nat","mode":"rewriting","onFailure":"open"}`},
		{`{"tenant":"blue","name":"fw","mode":"routed","probe":{"interval":"500ms"}}`, `{"tenant":"blue","name":"fw","mode":"routed","onFailure":"closed","probe":{"interval":"500ms","threshold":3}}`},
	} {
		var g vnet.Group
		if err := json.Unmarshal([]byte(tc.text), &g); err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice is once
			var err error
			if g, err = g.Normal(); err != nil {
				t.Fatal(err)
			}
			if got, err := json.Marshal(g); err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v, want %s", got, err, tc.want)
			}
		}
	}
	if vnet.Transparent.Addressed() || !vnet.Routed.Addressed() || !vnet.Rewriting.Addressed() {
		t.Error("ports of all functions but transparent ones have addresses")
	}
}

func TestGroupsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"fw"}`:                                "tenant is missing",
		`{"tenant":"blue"}`:                            "group is missing",
		`{"tenant":"blue","name":"red/fw"}`:            `group "red/fw"`,
		`{"tenant":"b","name":"g","mode":"x"}`:         `mode "x": must be transparent, routed or rewriting`,
		`{"tenant":"b","name":"g","onFailure":"fail"}`: `onFailure "fail": must be open or closed`,
		`{"tenant":"b","name":"g","mode":"rewriting","probe":{"interval":"1s"}}`: "probe: a packet does not come out of a rewriting function",
		`{"tenant":"b","name":"g","probe":{"threshold":3}}`:                      "probe: interval 0s: must be 50ms to 1h0m0s",
		`{"tenant":"b","name":"g","probe":{"interval":"49ms"}}`:                  "probe: interval 49ms",
		`{"tenant":"b","name":"g","probe":{"interval":"61m"}}`:                   "probe: interval 1h1m0s",
		`{"tenant":"b","name":"g","probe":{"interval":"-1s"}}`:                   "probe: interval -1s",
		`{"tenant":"b","name":"g","probe":{"interval":"1s","threshold":-1}}`:     "probe: threshold -1: must be 1 to 100",
		`{"tenant":"b","name":"g","probe":{"interval":"1s","threshold":101}}`:    "probe: threshold 101",
		`{"tenant":"b","name":"g","probe":{"interval":"1"}}`:                     `duration "1": want one such as 1s or 500ms`,
		`{"tenant":"b","name":"g","probe":{"interval":"soon"}}`:                  `duration "soon"`,
	} {
		var g vnet.Group
		err := json.Unmarshal([]byte(text), &g)
		if err == nil {
			_, err = g.Normal()
		}
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an ErrInvalid with %q", text, err, want)
		}
	}
}
