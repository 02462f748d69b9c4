package vnet_test

import (
	"encoding/json"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestPortsAreNumbersOrTextsAndComeBackAsTexts(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`[80]`, `["80"]`},
		{`["80", " 8000 - 8099 ", 443]`, `["80","8000-8099","443"]`},
		{`["7-7"]`, `["7"]`},
		{`["1-65535"]`, `["1-65535"]`},
		{`[]`, `[]`},
		{`null`, `[]`},
		{`80`, ""},
		{`"80"`, ""},
		{`{}`, ""},
		{`[0]`, ""},
		{`[65536]`, ""},
		{`[-1]`, ""},
		{`[80.0]`, ""},
		{`[8e1]`, ""},
		{`[null]`, ""},
		{`[[80]]`, ""},
		{`["8099-8000"]`, ""},
		{`["0-80"]`, ""},
		{`["80-65536"]`, ""},
		{`["80-"]`, ""},
		{`["-80"]`, ""},
		{`["80-90-100"]`, ""},
		{`["+80"]`, ""},
		{`["0x50"]`, ""},
		{`["http"]`, ""},
		{`[""]`, ""},
	} {
		var p vnet.PortRanges
		err := json.Unmarshal([]byte(tc.text), &p)
		if tc.want == "" {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("%s: got %v, %v, want an ErrInvalid", tc.text, p, err)
			}
			continue
		}
		got, merr := json.Marshal(p)
		if err != nil || merr != nil || string(got) != tc.want {
			t.Errorf("%s: got %s, %v, %v, want %s", tc.text, got, err, merr, tc.want)
		}
	}
}

// Two classifiers that mean the same ports are the same, however their ports are written.
func TestPortsAreSortedAndThoseThatTouchJoined(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`[443,80]`, "80,443"},
		{`[80,80]`, "80"},
		{`[80,81]`, "80-81"},
		{`[80,82]`, "80,82"},
		{`["80-90","85-100"]`, "80-100"},
		{`["80-100","85-90"]`, "80-100"},
		{`["1-65534",65535]`, "1-65535"},
		{`["65535-65535","1-65535"]`, "1-65535"},
		{`[]`, ""},
	} {
		var declared vnet.PortRanges
		if err := json.Unmarshal([]byte(tc.text), &declared); err != nil {
			t.Fatal(err)
		}
		before := declared.String()
		k, err := vnet.Classifier{From: everybody, To: everybody, Protocol: vnet.TCP, DestinationPorts: declared}.Normal()
		if err != nil || k.DestinationPorts.String() != tc.want {
			t.Errorf("%s: got %s, %v, want %s", tc.text, k.DestinationPorts, err, tc.want)
		}
		if declared.String() != before {
			t.Errorf("%s: Normal wrote into the declaration", tc.text)
		}
	}
	if masks := vnet.PortRanges(nil).Masks(); masks != nil {
		t.Errorf("no ports have the masks %v, which would not match any port", masks)
	}
}

// Each port of a range is matched by just one of its masks, and no other port by any.
func TestMasksMatchJustTheRange(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		first := rapid.Uint16Min(1).Draw(rt, "first")
		r := vnet.PortRange{First: first, Last: rapid.Uint16Min(first).Draw(rt, "last")}
		masks := r.Masks()
		if len(masks) > 30 {
			rt.Fatalf("%s has %d masks", r, len(masks))
		}
		for port := range uint16(65535) {
			port++ // from 1 to 65535
			matched := 0
			for _, m := range masks {
				if port&m.Mask == m.Port {
					matched++
				}
			}
			within := r.First <= port && port <= r.Last
			if within && matched != 1 || !within && matched != 0 {
				rt.Fatalf("%s: port %d is matched by %d of %v", r, port, matched, masks)
			}
		}
	})
	if worst := (vnet.PortRange{First: 1, Last: 65534}).Masks(); len(worst) != 30 {
		t.Errorf("the worst range has %d masks, want 30", len(worst))
	}
	if all := (vnet.PortRange{First: 0, Last: 65535}).Masks(); len(all) != 1 || all[0] != (vnet.PortMask{}) {
		t.Errorf("all ports have the masks %v, want one that has no bit", all)
	}
}

// Whatever stands there, it is refused with ErrInvalid, or it is ports that are read back the same.
func FuzzPortRanges(f *testing.F) {
	for _, seed := range []string{`[80,"443","8000-8099"]`, `[]`, `null`, `["0-1"]`, `[1e3]`, `["80 - 90"]`, `[null,{}]`, `"80"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p, again vnet.PortRanges
		if err := p.UnmarshalJSON(text); err != nil {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Fatalf("%q: %v is of no kind", text, err)
			}
			return
		}
		for _, r := range p {
			if r.First == 0 || r.Last < r.First || len(r.Masks()) > 30 {
				t.Fatalf("%q has the range %v", text, r)
			}
		}
		back, err := p.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalJSON(back); err != nil || again.String() != p.String() {
			t.Fatalf("%q is %s, which is read back as %s: %v", text, p, again, err)
		}
	})
}
