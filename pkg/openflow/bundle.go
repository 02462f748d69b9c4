package openflow

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Change is one step of a bundle: AddFlow, DeleteFlow, DeleteCookie, PutGroup or DeleteGroup.
type Change struct {
	command    uint8
	flow       Flow
	cookieMask uint64
	outGroup   uint32    // deletes only flows that name this group; anyGroup: whatever they name
	group      *groupMod // nil: it is about flows
}

// AddFlow adds a flow, or replaces what the flow with its table, priority and match does. The counters stay.
func AddFlow(f Flow) Change { return Change{command: commandAdd, flow: f, outGroup: anyGroup} }

// DeleteFlow deletes the flow with exactly this table, priority and match, whatever its cookie and actions. That there
// is none is no error.
func DeleteFlow(f Flow) Change {
	return Change{command: commandDeleteStrict, flow: f, outGroup: anyGroup}
}

// DeleteCookie deletes, in all tables, the flows whose cookie agrees with this one in the bits that mask has set. That
// there are none is no error. A zero mask takes every flow.
func DeleteCookie(cookie, mask uint64) Change {
	return Change{
		command: commandDelete, flow: Flow{Table: anyTable, Cookie: cookie}, cookieMask: mask, outGroup: anyGroup,
	}
}

// String says what the change does to what.
func (ch Change) String() string {
	switch {
	case ch.group != nil:
		return ch.group.String()
	case ch.command == commandAdd:
		return "add flow " + ch.flow.String()
	case ch.command == commandDeleteStrict:
		return "delete flow " + ch.flow.String()
	case ch.outGroup != anyGroup:
		return fmt.Sprintf("delete flows of group %d", ch.outGroup)
	}
	return fmt.Sprintf("delete flows with cookie 0x%x/0x%x", ch.flow.Cookie, ch.cookieMask)
}

// typ is the type of the message that the change is.
func (ch Change) typ() uint8 {
	if ch.group != nil {
		return typeGroupMod
	}
	return typeFlowMod
}

// body is the change as the body of a flow mod or a group mod.
func (ch Change) body() ([]byte, error) {
	if ch.group != nil {
		return ch.group.body()
	}
	f := ch.flow
	switch ch.command {
	case commandDelete:
		f.Match, f.Actions = nil, nil
	case commandDeleteStrict:
		f.Cookie, f.Actions = 0, nil
	}
	b, err := f.Match.append(flowMod(ch.command, f, ch.cookieMask, ch.outGroup))
	if err != nil {
		return nil, err
	}
	return f.appendInstructions(b)
}

// Bundles: OpenFlow 1.5.1, 7.3.9.
const (
	bundleOpen    = 0
	bundleCommit  = 4
	bundleDiscard = 6

	bundleAtomic  = 1
	bundleOrdered = 2
	bundleFlags   = bundleAtomic | bundleOrdered
)

// Commit makes all the changes, in their order, or none: packets see the tables before or after, nothing between. If
// the switch refuses one, the error names the first that it refused, wraps the *Error, and nothing has changed. After
// another error, a deadline for one, the connection is closed and nobody knows whether the changes were made.
func (c *Conn) Commit(ctx context.Context, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	changes = undoable(changes)
	end, err := c.begin(ctx)
	if err != nil {
		return fmt.Errorf("commit flows: %w", err)
	}
	defer end()
	b := bundle{conn: c, id: c.xid + 1, first: c.xid + 2, changes: changes}
	send, err := b.messages()
	if err != nil {
		return err
	}
	if err := b.talk(ctx, b.id, b.last(), send, typeBarrierReply); err != nil {
		return fmt.Errorf("send bundle: %w", err)
	}
	verdict, action := b.verdict(), uint16(bundleCommit)
	if verdict != nil {
		// OVS commits what is left of a bundle some of whose messages it refused, even with the atomic flag.
		action = bundleDiscard
	}
	send, err = b.control(nil, b.last()+1, action)
	if err != nil {
		return err
	}
	b.refusals = nil
	c.xid = b.last() + 1
	if err := b.talk(ctx, b.id, c.xid, send, typeBundleControl); err != nil {
		return fmt.Errorf("end bundle: %w", err)
	}
	if verdict == nil {
		verdict = b.verdict()
	}
	return verdict
}

// undoable puts before each deletion of a group one of the flows that name it, which says no more than the former. But an
// Open vSwitch 3.1 that cannot commit a bundle undoes it, puts the flows back that the deletion of a group took, before
// the group, and dies: "assertion group != NULL failed in ofproto_rule_insert__()".
func undoable(changes []Change) []Change {
	all := make([]Change, 0, len(changes))
	for _, ch := range changes {
		if ch.group != nil && ch.group.command == groupDelete {
			all = append(all, Change{command: commandDelete, flow: Flow{Table: anyTable}, outGroup: ch.group.group.ID})
		}
		all = append(all, ch)
	}
	return all
}

// bundle is one Commit. Its transaction ids: id (also the bundle's id) opens it, one follows for each change, then the
// barrier's (last), then that of the commit.
type bundle struct {
	conn     *Conn
	id       uint32
	first    uint32
	changes  []Change
	refusals []refused
}

// refused is what the switch said to the message with this transaction id.
type refused struct {
	xid uint32
	err error
}

func (b *bundle) last() uint32 { return b.first + uint32(len(b.changes)) }

// messages are all messages up to the barrier, whose answer says that the switch has answered all before.
func (b *bundle) messages() ([]byte, error) {
	send, err := b.control(make([]byte, 0, 256*len(b.changes)), b.id, bundleOpen)
	if err != nil {
		return nil, err
	}
	for i, ch := range b.changes {
		xid := b.first + uint32(i)
		body, err := ch.body()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ch, err)
		}
		add := binary.BigEndian.AppendUint32(nil, b.id)
		add = append(add, 0, 0, 0, bundleFlags)
		if add, err = (message{typ: ch.typ(), xid: xid, body: body}).append(add); err != nil {
			return nil, fmt.Errorf("%s: %w", ch, err)
		}
		if send, err = (message{typ: typeBundleAdd, xid: xid, body: add}).append(send); err != nil {
			return nil, fmt.Errorf("%s: %w", ch, err)
		}
	}
	return message{typ: typeBarrierRequest, xid: b.last()}.append(send)
}

// control appends an OFPT_BUNDLE_CONTROL.
func (b *bundle) control(send []byte, xid uint32, action uint16) ([]byte, error) {
	body := binary.BigEndian.AppendUint32(nil, b.id)
	body = binary.BigEndian.AppendUint16(body, action)
	body = binary.BigEndian.AppendUint16(body, bundleFlags)
	return message{typ: typeBundleControl, xid: xid, body: body}.append(send)
}

// talk sends and collects refusals, until the last message is answered: by an error or by a message of this type.
func (b *bundle) talk(ctx context.Context, first, last uint32, send []byte, wanted uint8) error {
	return b.conn.converse(ctx, first, last, send, func(m message) (bool, error) {
		if m.typ == typeError {
			err := refusal(m)
			b.refusals = append(b.refusals, refused{m.xid, err})
			return m.xid == last, nil
		}
		if m.xid == last && m.typ != wanted {
			return false, fmt.Errorf("an answer of type %d instead of %d", m.typ, wanted)
		}
		return m.xid == last, nil
	})
}

// verdict is nil, or the first refusal and how many there are.
func (b *bundle) verdict() error {
	if len(b.refusals) == 0 {
		return nil
	}
	first := b.refusals[0]
	what := "bundle"
	if i := first.xid - b.first; i < uint32(len(b.changes)) {
		what = b.changes[i].String()
	}
	more := len(b.refusals) - 1
	if last := b.refusals[more]; more > 0 && last.xid == b.last()+1 {
		more-- // the commit itself, refused for what was refused before it
	}
	if more > 0 {
		return fmt.Errorf("%s: %w (and %d more refused)", what, first.err, more)
	}
	return fmt.Errorf("%s: %w", what, first.err)
}
