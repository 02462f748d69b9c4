package vnet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxLinkName is how long a link's name may be: IFNAMSIZ-1.
const maxLinkName = 15

const uplinkBridge = "br-"

// UplinkName names an uplink of a node, and with "br-" before it the uplink's bridge.
type UplinkName string

// Validate reports whether n can name an uplink.
func (n UplinkName) Validate() error {
	if limit := maxLinkName - len(uplinkBridge); len(n) > limit {
		return Invalidf("uplink %.20q has %d characters: at most %d are allowed, as its bridge is %sNAME", string(n), len(n), limit, uplinkBridge)
	}
	return checkName("uplink", string(n))
}

// Bridge is the name of the bridge that the uplink's NIC is in, and of the link that has the host's addresses.
func (n UplinkName) Bridge() string { return uplinkBridge + string(n) }

// Uplinks have the OpenFlow port numbers from FirstUplinkPort to LastUplinkPort on the bridge of their networks.
const (
	FirstUplinkPort = 0x100
	LastUplinkPort  = 0x3ff
)

// Uplink is a physical NIC that provider networks use.
type Uplink struct {
	Name  UplinkName `json:"name"`
	NIC   string     `json:"nic"`
	VLANs VLANs      `json:"vlans,omitempty"` // those that networks may have; empty: all. Untagged is always free

	// The node adds the rest. Bridge is the bridge that its networks are on, OFPort the OpenFlow port number by which
	// they reach the NIC. Leaving: its removal was begun, and no network may come.
	Bridge  string `json:"bridge,omitempty"`
	OFPort  int    `json:"ofport,omitempty"`
	Leaving bool   `json:"leaving,omitempty"`
}

// Normal checks a declaration. What the node adds is left as it is.
func (u Uplink) Normal() (Uplink, error) {
	if err := u.Name.Validate(); err != nil {
		return u, err
	}
	if u.NIC == "" || len(u.NIC) > maxLinkName || strings.ContainsAny(u.NIC, "/ \t\n") || u.NIC == "." || u.NIC == ".." {
		return u, Invalidf("uplink %s: nic %q cannot be a link's name", u.Name, u.NIC)
	}
	u.VLANs = slices.Clone(u.VLANs)
	slices.SortFunc(u.VLANs, func(a, b VLANRange) int { return a.First - b.First })
	return u, nil
}

// Trunk lists the VLANs that pass between the NIC and the networks, 0 for untagged frames; nil: all.
func (u Uplink) Trunk() []int {
	if len(u.VLANs) == 0 {
		return nil
	}
	trunk := []int{0}
	for _, r := range u.VLANs {
		for v := r.First; v <= r.Last; v++ {
			trunk = append(trunk, v)
		}
	}
	slices.Sort(trunk)
	return slices.Compact(trunk)
}

// Provider says that a network is a VLAN of an uplink: what is on the wire is in the network.
type Provider struct {
	Uplink UplinkName `json:"uplink,omitempty"`
	VLAN   int        `json:"vlan,omitempty"` // 1 to 4094; 0: untagged
}

func (p Provider) String() string {
	if p.VLAN == 0 {
		return fmt.Sprintf("untagged on uplink %s", p.Uplink)
	}
	return fmt.Sprintf("VLAN %d of uplink %s", p.VLAN, p.Uplink)
}

const maxVLAN = 4094 // 0 and 4095 are reserved (IEEE 802.1Q)

func (p Provider) validate() error {
	if p.VLAN < 0 || p.VLAN > maxVLAN {
		return Invalidf("provider: vlan %d: must be 1 to %d, or 0 for untagged", p.VLAN, maxVLAN)
	}
	return p.Uplink.Validate()
}

// VLANRange is an inclusive range of VLANs. Its text form is "100" or "100-199".
type VLANRange struct{ First, Last int }

func (r VLANRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// VLANs is a list of ranges.
type VLANs []VLANRange

// ParseVLANs parses ranges such as "100-199" and "7".
func ParseVLANs(texts ...string) (VLANs, error) {
	var list VLANs
	for _, text := range texts {
		first, last, found := strings.Cut(text, "-")
		if !found {
			last = first
		}
		f, err1 := strconv.Atoi(strings.TrimSpace(first))
		l, err2 := strconv.Atoi(strings.TrimSpace(last))
		if err1 != nil || err2 != nil || f < 1 || l < f || l > maxVLAN {
			return nil, Invalidf("vlans %q: want a VLAN or a range such as 100-199, of 1 to %d", text, maxVLAN)
		}
		list = append(list, VLANRange{f, l})
	}
	return list, nil
}

// Contains reports whether a network may have the VLAN.
func (v VLANs) Contains(vlan int) bool {
	return vlan == 0 || len(v) == 0 || slices.ContainsFunc(v, func(r VLANRange) bool { return r.First <= vlan && vlan <= r.Last })
}

func (v VLANs) String() string {
	texts := make([]string, len(v))
	for i, r := range v {
		texts[i] = r.String()
	}
	return strings.Join(texts, ",")
}

// MarshalJSON writes a list of texts.
func (v VLANs) MarshalJSON() ([]byte, error) {
	texts := make([]string, len(v))
	for i, r := range v {
		texts[i] = r.String()
	}
	return json.Marshal(texts)
}

// UnmarshalJSON reads a list of numbers or texts.
func (v *VLANs) UnmarshalJSON(b []byte) error {
	var items []json.RawMessage
	if err := json.Unmarshal(b, &items); err != nil {
		return Invalidf("vlans: want a list such as [\"100-199\", 7]")
	}
	texts := make([]string, len(items))
	for i, item := range items {
		if json.Unmarshal(item, &texts[i]) != nil {
			texts[i] = string(item)
		}
	}
	list, err := ParseVLANs(texts...)
	if err == nil {
		*v = list
	}
	return err
}
