package openflow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Group is the action that hands the packet to the group with this number; the flow's next action follows.
//
// The group must be there before the flow: the switch refuses a flow whose group is missing (OFPBAC_BAD_OUT_GROUP). In
// a bucket it does not look: there a group that is missing drops, and so does one that names itself.
type Group uint32

func (a Group) append(b []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(header(b, typeGroup, 8), uint32(a)), nil
}
func (a Group) String() string { return fmt.Sprintf("group:%d", uint32(a)) }

// GroupType says which of its buckets a group takes.
type GroupType uint8

// The types of groups: OpenFlow 1.5.1, 7.3.4.3.
const (
	// GroupAll takes every bucket, each with a copy of the packet.
	GroupAll GroupType = 0
	// GroupSelect takes one of the buckets that live, by the packet's connection (the hash over its addresses, protocol
	// and ports) and in proportion to the weights. It always has the selection method "dp_hash" of netronome-ext.h, with
	// which the datapath computes the hash: a packet without one comes back to the group once more (recirculation).
	GroupSelect GroupType = 1
	// GroupFastFailover takes the first bucket that lives.
	GroupFastFailover GroupType = 3
)

// String is the type as ovs-ofctl writes it.
func (t GroupType) String() string {
	switch t {
	case GroupAll:
		return "all"
	case GroupSelect:
		return "select"
	case GroupFastFailover:
		return "ff"
	}
	return fmt.Sprintf("unknown(%d)", uint8(t))
}

// GroupConfig is a group. A group without a bucket that it can take drops.
type GroupConfig struct {
	ID      uint32 // up to 0xffffff00; each bridge has numbers of its own
	Type    GroupType
	Buckets []Bucket

	// Unknown is set in what the switch says of a foreign group, one with parts that this package does not know: the
	// struct ofp_group_desc as on the wire. Such a group has neither Type nor Buckets here. It differs from every group of
	// ours and can be deleted or replaced, but not put.
	Unknown []byte
}

// Bucket is what a group may do. The number by which OpenFlow knows it is its place in the group, from 0.
//
// A bucket without a watch always lives. One with a watch lives while the port is up, or while the group has a bucket
// that lives; of two watches one is enough. A bucket of GroupFastFailover must have a watch (OFPGMFC_INVALID_GROUP), one
// of GroupAll must not (OFPGMFC_WATCH_UNSUPPORTED).
type Bucket struct {
	Weight     uint16 // its share, for GroupSelect only; 0: none
	WatchPort  uint32 // 0: none
	WatchGroup uint32 // 0: none

	// Actions are an action set (OpenFlow 1.5.1, 5.6), which Open vSwitch does in an order of its own, whatever theirs is.
	// So that what is written is what is done, they must be in that order: PopVLAN, PushVLAN, DecTTL, then any number of
	// SetField, Move and MoveBits, and last one of CT, Resubmit, Output and Group. None of the last: drop. Others are not
	// for buckets. What a bucket does to the packet shows in Resubmit, but not in the flow's next action.
	Actions []Action
}

// Groups: OpenFlow 1.5.1, 7.3.4.3 and 7.3.5.10; Open vSwitch's netronome-ext.h.
const (
	maxGroup  = 0xffffff00 // OFPG_MAX; the numbers beyond stand for several groups or none
	allGroups = 0xfffffffc // OFPG_ALL

	groupDelete   = 2
	groupAddOrMod = 0x8000 // OFPGC11_ADD_OR_MOD, Open vSwitch's own: OpenFlow has add and modify only

	allBuckets       = 0xffffffff // OFPG_BUCKET_ALL
	bucketWeight     = 0          // OFPGBPT_WEIGHT
	bucketWatchPort  = 1          // OFPGBPT_WATCH_PORT
	bucketWatchGroup = 2          // OFPGBPT_WATCH_GROUP

	propertyExperimenter = 0xffff
	netronome            = 0x0000154d // NTR_VENDOR_ID
	selectionMethod      = 1          // NTRT_SELECTION_METHOD
	selectionMethodSize  = 40         // struct ntr_group_prop_selection_method without fields

	groupDescSize = 16
)

// PutGroup adds the group, or replaces what the one with its number is; flows that name it stay.
func PutGroup(g GroupConfig) Change { return Change{group: &groupMod{groupAddOrMod, g}} }

// DeleteGroup deletes a group, foreign ones too, and with it the flows that name it: delete or replace those before. That
// there is none is no error. Buckets that name it stay.
func DeleteGroup(id uint32) Change { return Change{group: &groupMod{groupDelete, GroupConfig{ID: id}}} }

// String is the group as "ovs-ofctl -O OpenFlow15 --no-names dump-groups" prints it, without the leading space; a
// foreign one is not printed so. ovs-ofctl add-group takes it back.
func (g GroupConfig) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "group_id=%d,", g.ID)
	if g.Unknown != nil {
		fmt.Fprintf(&s, "unknown(0x%x)", g.Unknown)
		return s.String()
	}
	fmt.Fprintf(&s, "type=%s", g.Type)
	if g.Type == GroupSelect {
		s.WriteString(",selection_method=dp_hash")
	}
	for i, b := range g.Buckets {
		fmt.Fprintf(&s, ",bucket=bucket_id:%d,", i)
		if g.Type == GroupSelect && b.Weight != 1 || g.Type != GroupSelect && b.Weight != 0 {
			fmt.Fprintf(&s, "weight:%d,", b.Weight)
		}
		if b.WatchPort != 0 {
			fmt.Fprintf(&s, "watch_port:%d,", b.WatchPort)
		}
		if b.WatchGroup != 0 {
			fmt.Fprintf(&s, "watch_group:%d,", b.WatchGroup)
		}
		s.WriteString("actions=" + actionsWord(b.Actions))
	}
	return s.String()
}

// Body is what a group is beside its number. It is for comparing, not for reading.
func (g GroupConfig) Body() string {
	b := g.Unknown
	if b == nil {
		var err error
		if b, err = g.description(); err != nil { // a group that no switch has
			return g.String()
		}
	}
	if len(b) < groupDescSize {
		return string(b)
	}
	return string(b[:4]) + string(b[8:])
}

// description is the group as struct ofp_group_desc.
func (g GroupConfig) description() ([]byte, error) {
	buckets, err := g.appendBuckets(nil)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, groupDescSize+len(buckets)+selectionMethodSize), 0, 0, uint8(g.Type), 0)
	b = binary.BigEndian.AppendUint32(b, g.ID)
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(buckets), maxMessage)))
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = g.appendProperties(append(b, buckets...))
	binary.BigEndian.PutUint16(b, uint16(min(len(b), maxMessage)))
	return b, nil
}

// appendBuckets writes an array of struct ofp_bucket.
func (g GroupConfig) appendBuckets(b []byte) ([]byte, error) {
	for i, bucket := range g.Buckets {
		var err error
		if b, err = bucket.append(b, i, g.Type); err != nil {
			return nil, fmt.Errorf("bucket %d: %w", i, err)
		}
	}
	return b, nil
}

func (bu Bucket) append(b []byte, id int, typ GroupType) ([]byte, error) {
	if bu.Weight != 0 && typ != GroupSelect {
		return nil, fmt.Errorf("a bucket of a group of type %s has no weight", typ)
	}
	if err := bu.checkOrder(); err != nil {
		return nil, err
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0) // the two lengths
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	for _, a := range bu.Actions {
		var err error
		if b, err = a.append(b); err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(min(len(b)-start-8, maxMessage)))
	if typ == GroupSelect {
		b = append(binary.BigEndian.AppendUint16(header(b, bucketWeight, 8), bu.Weight), 0, 0)
	}
	if bu.WatchPort != 0 {
		b = binary.BigEndian.AppendUint32(header(b, bucketWatchPort, 8), bu.WatchPort)
	}
	if bu.WatchGroup != 0 {
		b = binary.BigEndian.AppendUint32(header(b, bucketWatchGroup, 8), bu.WatchGroup)
	}
	// A length that is cut short here makes the message too long, which message.append refuses.
	binary.BigEndian.PutUint16(b[start:], uint16(min(len(b)-start, maxMessage)))
	return b, nil
}

// checkOrder refuses actions that Open vSwitch would do in another order or leave out, without a word
// (ofpacts_execute_action_set in ofp-actions.c).
func (bu Bucket) checkOrder() error {
	const sets = 4
	last := 0
	for _, a := range bu.Actions {
		var place int
		switch a.(type) {
		case popVLAN:
			place = 1
		case pushVLAN:
			place = 2
		case decTTL:
			place = 3
		case SetField, move:
			place = sets
		case CT, Resubmit, Output, Group:
			place = 5
		default:
			return fmt.Errorf("%s is not for buckets", a)
		}
		if place < last || place == last && place != sets {
			return fmt.Errorf("%s comes too late: actions of a bucket have an order, see Bucket", a)
		}
		last = place
	}
	return nil
}

// appendProperties writes the property of a select group, struct ntr_group_prop_selection_method.
func (g GroupConfig) appendProperties(b []byte) []byte {
	if g.Type != GroupSelect {
		return b
	}
	b = header(b, propertyExperimenter, selectionMethodSize)
	b = binary.BigEndian.AppendUint32(b, netronome)
	b = binary.BigEndian.AppendUint32(b, selectionMethod)
	b = append(b, 0, 0, 0, 0)
	b = append(b, "dp_hash\x00\x00\x00\x00\x00\x00\x00\x00\x00"...) // 16 bytes
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)                        // its parameter
}

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
	switch {
	case g.ID > maxGroup:
		return nil, fmt.Errorf("a group has a number up to 0x%x", uint32(maxGroup))
	case g.Unknown != nil:
		return nil, errors.New("a foreign group cannot be sent")
	case g.Type != GroupAll && g.Type != GroupSelect && g.Type != GroupFastFailover:
		return nil, errors.New("no such type of group")
	}
	buckets, err := g.appendBuckets(nil)
	if err != nil {
		return nil, err
	}
	b := append(binary.BigEndian.AppendUint16(nil, m.command), uint8(g.Type), 0)
	b = binary.BigEndian.AppendUint32(b, g.ID)
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(buckets), maxMessage)))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, allBuckets) // which the command is about: not a single one
	return g.appendProperties(append(b, buckets...)), nil
}

// Groups asks the switch for its groups, in no order. Foreign ones come with Unknown.
func (c *Conn) Groups(ctx context.Context) ([]GroupConfig, error) {
	request := []byte{0, multipartGroupDesc, 0, 0, 0, 0, 0, 0}
	request = append(binary.BigEndian.AppendUint32(request, allGroups), 0, 0, 0, 0)
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

// decodeGroups reads the body of an OFPMP_GROUP_DESC reply: an array of struct ofp_group_desc.
func decodeGroups(b []byte) ([]GroupConfig, error) {
	var groups []GroupConfig
	for len(b) > 0 {
		if len(b) < groupDescSize {
			return nil, fmt.Errorf("a group: %w", errShort)
		}
		length := int(binary.BigEndian.Uint16(b))
		if length < groupDescSize || length > len(b) {
			return nil, fmt.Errorf("a group says it has %d of %d bytes", length, len(b))
		}
		g, err := decodeGroup(b[:length])
		if err != nil {
			return nil, fmt.Errorf("group %d: %w", binary.BigEndian.Uint32(b[4:]), err)
		}
		groups = append(groups, g)
		b = b[length:]
	}
	return groups, nil
}

// decodeGroup reads one group. It is one of ours only if our encoder writes the very same bytes.
func decodeGroup(raw []byte) (GroupConfig, error) {
	g := GroupConfig{Type: GroupType(raw[2]), ID: binary.BigEndian.Uint32(raw[4:])}
	length := int(binary.BigEndian.Uint16(raw[8:]))
	if length > len(raw)-groupDescSize {
		return g, fmt.Errorf("buckets: %w", errShort)
	}
	for rest := raw[groupDescSize:][:length]; len(rest) > 0; {
		n := 0
		if len(rest) >= 8 {
			n = int(binary.BigEndian.Uint16(rest))
		}
		if n < 8 || n > len(rest) {
			return g, fmt.Errorf("a bucket of %d of %d bytes", n, len(rest))
		}
		b, err := guessBucket(rest[:n])
		if err != nil {
			return g, fmt.Errorf("bucket: %w", err)
		}
		g.Buckets = append(g.Buckets, b)
		rest = rest[n:]
	}
	switch g.Type {
	case GroupAll, GroupSelect, GroupFastFailover:
		if same, err := g.description(); err == nil && string(same) == string(raw) {
			return g, nil
		}
	}
	return GroupConfig{ID: g.ID, Unknown: clone(raw)}, nil
}

// guessBucket reads what append writes; what it does not look at, append writes otherwise.
func guessBucket(raw []byte) (Bucket, error) {
	length := int(binary.BigEndian.Uint16(raw[2:]))
	if length > len(raw)-8 {
		return Bucket{}, fmt.Errorf("actions: %w", errShort)
	}
	actions, err := decodeActions(raw[8:][:length])
	if err != nil {
		return Bucket{}, err
	}
	b := Bucket{Actions: actions}
	for rest := raw[8+length:]; len(rest) > 0; {
		property, err := cut(rest)
		if err != nil {
			return Bucket{}, fmt.Errorf("property: %w", err)
		}
		switch binary.BigEndian.Uint16(property) {
		case bucketWeight:
			b.Weight = binary.BigEndian.Uint16(property[4:])
		case bucketWatchPort:
			b.WatchPort = binary.BigEndian.Uint32(property[4:])
		case bucketWatchGroup:
			b.WatchGroup = binary.BigEndian.Uint32(property[4:])
		}
		rest = rest[len(property):]
	}
	return b, nil
}
