package openflow

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
)

// GroupConfig is a group: buckets of actions, of which its type says which are taken. Its number is from 1 to
// 0xffffff00 (OpenFlow 1.5.1, 7.3.4.3).
//
// Of a bucket's actions that send the packet on (Output, Resubmit, Group, CT) only one takes effect, since they
// are an action set: let there be one, and last. What a bucket sets is undone behind the group.
type GroupConfig struct {
	ID      uint32
	Type    GroupType
	Buckets []Bucket

	foreign []byte // as on the wire, of a group that we would write otherwise
}

// GroupType says which buckets of a group are taken.
type GroupType uint8

// The types: OpenFlow 1.5.1, 5.10.1.
const (
	GroupAll GroupType = 0
	// GroupSelect takes one bucket that lives, by its weight and a hash that the datapath makes of the connection's
	// addresses and ports (dp_hash): any other method makes a datapath flow for each connection.
	GroupSelect GroupType = 1
	// GroupFastFailover takes the first bucket that lives.
	GroupFastFailover GroupType = 3
)

func (t GroupType) String() string {
	switch t {
	case GroupAll:
		return "all"
	case GroupSelect:
		return "select"
	case GroupFastFailover:
		return "ff"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Bucket is one choice of a group. It lives if the port that it watches is up, or if the group that it watches has a
// bucket that lives; of both, one is enough. One that watches nothing lives always, which a fast-failover group does
// not allow.
type Bucket struct {
	ID         uint32 // unique in its group
	Weight     uint16 // of a select group: its share; 0: it is not chosen
	WatchPort  uint32 // 0: none
	WatchGroup uint32 // 0: none
	Actions    []Action
}

// String is the group as "ovs-ofctl -O OpenFlow15 dump-groups" prints it, without the leading space.
func (g GroupConfig) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "group_id=%d,type=%s", g.ID, g.Type)
	if g.Type == GroupSelect {
		s.WriteString(",selection_method=" + dpHash)
	}
	for _, b := range g.Buckets {
		fmt.Fprintf(&s, ",bucket=bucket_id:%d", b.ID)
		if g.Type == GroupSelect && b.Weight != 1 {
			fmt.Fprintf(&s, ",weight:%d", b.Weight)
		}
		if b.WatchPort != 0 {
			fmt.Fprintf(&s, ",watch_port:%d", b.WatchPort)
		}
		if b.WatchGroup != 0 {
			fmt.Fprintf(&s, ",watch_group:%d", b.WatchGroup)
		}
		s.WriteString(",actions=")
		for i, a := range b.Actions {
			if i > 0 {
				s.WriteString(",")
			}
			s.WriteString(a.String())
		}
		if len(b.Actions) == 0 {
			s.WriteString("drop")
		}
	}
	return s.String()
}

// Body is what a group is beside its number. It is for comparing, not for reading.
func (g GroupConfig) Body() string {
	b, err := groupMod{groupPut, g}.body()
	if err != nil || g.foreign != nil { // nothing that we could write
		return "foreign " + string(g.foreign)
	}
	return string(b)
}

// PutGroup adds the group, or replaces the one with its number. Groups that its buckets name must be there before.
func PutGroup(g GroupConfig) Change { return Change{group: &groupMod{groupPut, g}} }

// DeleteGroup deletes the group with this number, and with it the flows that name it. That there is none is no error.
func DeleteGroup(id uint32) Change {
	return Change{group: &groupMod{groupDelete, GroupConfig{ID: id}}}
}

// Group mods: OpenFlow 1.5.1, 7.3.4.3; Open vSwitch's openflow-1.1.h for the first command.
const (
	groupPut    = 0x8000 // OFPGC11_ADD_OR_MOD
	groupDelete = 2

	allBuckets = 0xffffffff // OFPG_BUCKET_ALL

	bucketWeight     = 0 // OFPGBPT_WEIGHT
	bucketWatchPort  = 1 // OFPGBPT_WATCH_PORT
	bucketWatchGroup = 2 // OFPGBPT_WATCH_GROUP

	netronome       = 0x0000154d // NTR_VENDOR_ID
	selectionMethod = 1          // NTRT_SELECTION_METHOD, netronome-ext.h
	methodLength    = 16
	dpHash          = "dp_hash"
)

// groupMod is an OFPT_GROUP_MOD.
type groupMod struct {
	command uint16
	group   GroupConfig
}

func (m groupMod) String() string {
	if m.command == groupDelete {
		return fmt.Sprintf("delete group %d", m.group.ID)
	}
	return "put group " + m.group.String()
}

func (m groupMod) body() ([]byte, error) {
	g := m.group
	b := binary.BigEndian.AppendUint16(nil, m.command)
	b = append(b, uint8(g.Type), 0)
	b = binary.BigEndian.AppendUint32(b, g.ID)
	buckets, err := g.buckets()
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(buckets), maxMessage)))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, allBuckets)
	return append(append(b, buckets...), g.properties()...), nil
}

// buckets are a group's, as struct ofp_bucket.
func (g GroupConfig) buckets() ([]byte, error) {
	var b []byte
	for _, bucket := range g.Buckets {
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, bucket.ID)
		for _, a := range bucket.Actions {
			var err error
			if b, err = a.append(b); err != nil {
				return nil, err
			}
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(min(len(b)-start-8, maxMessage)))
		if g.Type == GroupSelect {
			b = binary.BigEndian.AppendUint16(header(b, bucketWeight, 8), bucket.Weight)
			b = append(b, 0, 0)
		}
		if bucket.WatchPort != 0 {
			b = binary.BigEndian.AppendUint32(header(b, bucketWatchPort, 8), bucket.WatchPort)
		}
		if bucket.WatchGroup != 0 {
			b = binary.BigEndian.AppendUint32(header(b, bucketWatchGroup, 8), bucket.WatchGroup)
		}
		binary.BigEndian.PutUint16(b[start:], uint16(min(len(b)-start, maxMessage)))
	}
	return b, nil
}

// properties are the group's: of a select group the method (struct ntr_group_prop_selection_method).
func (g GroupConfig) properties() []byte {
	if g.Type != GroupSelect {
		return nil
	}
	b := header(nil, typeExperimenter, 40)
	b = binary.BigEndian.AppendUint32(b, netronome)
	b = binary.BigEndian.AppendUint32(b, selectionMethod)
	b = append(b, 0, 0, 0, 0)
	var method [methodLength]byte
	copy(method[:], dpHash)
	b = append(b, method[:]...)
	return binary.BigEndian.AppendUint64(b, 0) // the parameter
}

// Groups asks the switch for the groups that stand, in no order. One that we would write otherwise is comparable, and
// different from every group of ours.
func (c *Conn) Groups(ctx context.Context) ([]GroupConfig, error) {
	request := binary.BigEndian.AppendUint16(nil, multipartGroupDesc)
	request = append(request, 0, 0, 0, 0, 0, 0)
	request = binary.BigEndian.AppendUint32(request, 0xfffffffc) // OFPG_ALL
	request = append(request, 0, 0, 0, 0)
	var groups []GroupConfig
	err := c.multipart(ctx, request, func(b []byte) error {
		more, err := decodeGroups(b)
		groups = append(groups, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	return groups, nil
}

// decodeGroups reads the body of an OFPMP_GROUP_DESC reply: an array of struct ofp_group_desc (OpenFlow 1.5.1, 7.3.5.11).
func decodeGroups(b []byte) ([]GroupConfig, error) {
	const fixed = 16
	var groups []GroupConfig
	for len(b) > 0 {
		if len(b) < fixed {
			return nil, fmt.Errorf("a group: %w", errShort)
		}
		length, buckets := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[8:]))
		if length < fixed+buckets || length > len(b) {
			return nil, fmt.Errorf("a group says it has %d of %d bytes, %d of them buckets", length, len(b), buckets)
		}
		g := GroupConfig{ID: binary.BigEndian.Uint32(b[4:]), Type: GroupType(b[2])}
		raw := b[fixed:length]
		if !g.decodeBuckets(raw[:buckets]) || !g.writes(raw) {
			g.foreign, g.Buckets = clone(raw), nil
		}
		groups = append(groups, g)
		b = b[length:]
	}
	return groups, nil
}

// decodeBuckets reads a list of struct ofp_bucket, and reports whether they may be ours.
func (g *GroupConfig) decodeBuckets(b []byte) bool {
	for len(b) > 0 {
		raw, ok := sized(b, 8)
		if !ok {
			return false
		}
		actions := 8 + int(binary.BigEndian.Uint16(raw[2:]))
		if actions > len(raw) {
			return false
		}
		bucket := Bucket{ID: binary.BigEndian.Uint32(raw[4:])}
		var err error
		if bucket.Actions, err = decodeActions(raw[8:actions]); err != nil {
			return false
		}
		for props := raw[actions:]; len(props) > 0; {
			p, err := cut(props)
			if err != nil {
				return false
			}
			switch value := binary.BigEndian.Uint32(p[4:]); binary.BigEndian.Uint16(p) {
			case bucketWeight:
				bucket.Weight = uint16(value >> 16)
			case bucketWatchPort:
				if value != portAny {
					bucket.WatchPort = value
				}
			case bucketWatchGroup:
				if value != anyGroup {
					bucket.WatchGroup = value
				}
			}
			props = props[len(p):]
		}
		g.Buckets = append(g.Buckets, bucket)
		b = b[len(raw):]
	}
	return true
}

// sized returns the first of a list of structures that start with their length.
func sized(b []byte, least int) ([]byte, bool) {
	if len(b) < least {
		return nil, false
	}
	length := int(binary.BigEndian.Uint16(b))
	if length < least || length%8 != 0 || length > len(b) {
		return nil, false
	}
	return b[:length], true
}

// writes reports whether we would write the group just so.
func (g *GroupConfig) writes(raw []byte) bool {
	b, err := g.buckets()
	return err == nil && bytes.Equal(append(b, g.properties()...), raw)
}
