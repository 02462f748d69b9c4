package uplink

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A message is one of rtnetlink: a fixed head and attributes (rtnetlink(7)).
type message struct {
	head  []byte
	attrs []attr
}

type attr struct {
	kind  uint16
	value []byte
}

// A place is a link, by both of the names that messages have for it.
type place struct {
	name  string
	index int
}

var native = binary.NativeEndian

func decode(b []byte, head int) (message, error) {
	if len(b) < head {
		return message{}, errors.New("not a message of rtnetlink")
	}
	attrs, err := nl.ParseRouteAttr(b[head:])
	if err != nil {
		return message{}, err
	}
	m := message{head: slices.Clone(b[:head])}
	for _, a := range attrs {
		m.attrs = append(m.attrs, attr{a.Attr.Type, slices.Clone(a.Value)})
	}
	return m, nil
}

func (m message) encode() []byte {
	b := slices.Clone(m.head)
	for _, a := range m.attrs {
		b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.value)))
		b = native.AppendUint16(b, a.kind)
		b = append(b, a.value...)
		b = append(b, make([]byte, -len(a.value)&(unix.RTA_ALIGNTO-1))...)
	}
	return b
}

// get is an attribute's value, nil if there is none.
func (m message) get(kind uint16) []byte {
	for _, a := range m.attrs {
		if a.kind == kind {
			return a.value
		}
	}
	return nil
}

// number is an attribute of 32 bits, 0 if there is none.
func (m message) number(kind uint16) uint32 {
	if v := m.get(kind); len(v) == 4 {
		return native.Uint32(v)
	}
	return 0
}

// addr is an attribute that is an address, the zero Addr if there is none.
func (m message) addr(kind uint16) netip.Addr {
	a, _ := netip.AddrFromSlice(m.get(kind))
	return a
}

func (m message) family() byte { return m.head[0] }

// without returns m without attributes of these kinds.
func (m message) without(kinds ...uint16) message {
	return message{slices.Clone(m.head), slices.DeleteFunc(slices.Clone(m.attrs), func(a attr) bool { return slices.Contains(kinds, a.kind) })}
}

// with returns m with the attribute.
func (m message) with(kind uint16, value []byte) message {
	m = m.without(kind)
	m.attrs = append(m.attrs, attr{kind, value})
	return m
}

// same reports whether both say the same, in whatever order.
func (m message) same(o message) bool {
	return bytes.Equal(m.head, o.head) && slices.EqualFunc(m.sorted(), o.sorted(), func(a, b attr) bool {
		return a.kind == b.kind && bytes.Equal(a.value, b.value)
	})
}

func (m message) sorted() []attr {
	return slices.SortedFunc(slices.Values(m.attrs), func(a, b attr) int { return cmp.Compare(a.kind, b.kind) })
}

func word(n uint32) []byte { return native.AppendUint32(nil, n) }
