package vnet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// PortRange is an inclusive range of TCP or UDP ports. Its text form is "80" or "8000-8099".
type PortRange struct{ First, Last uint16 }

// ParsePortRange parses the text form.
func ParsePortRange(text string) (PortRange, error) {
	first, last, found := strings.Cut(text, "-")
	if !found {
		last = first
	}
	f, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	l, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err1 != nil || err2 != nil || f < 1 || l < f {
		return PortRange{}, Invalidf("ports %q: want a port or a range such as 8000-8099, of 1 to 65535", text)
	}
	return PortRange{uint16(f), uint16(l)}, nil
}

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// PortMask matches the ports that agree with Port in the bits that Mask has set.
type PortMask struct{ Port, Mask uint16 }

// Masks are the least masks that match just the range: at most 30 for any range.
func (r PortRange) Masks() []PortMask {
	var masks []PortMask
	for at, last := uint32(r.First), uint32(r.Last); at <= last; {
		size := uint32(1) << bits.TrailingZeros32(at|1<<16)
		for at+size-1 > last {
			size /= 2
		}
		masks = append(masks, PortMask{uint16(at), ^uint16(size - 1)})
		at += size
	}
	return masks
}

// PortRanges is a list of ranges. Its JSON form is a list of numbers or texts.
type PortRanges []PortRange

// normal sorts the ranges and joins those that touch.
func (p PortRanges) normal() PortRanges {
	sorted := slices.Clone(p)
	slices.SortFunc(sorted, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	var joined PortRanges
	for _, r := range sorted {
		if n := len(joined); n > 0 && uint32(r.First) <= uint32(joined[n-1].Last)+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// Masks are those of all ranges; nil for no range, which means any port.
func (p PortRanges) Masks() []PortMask {
	var masks []PortMask
	for _, r := range p {
		masks = append(masks, r.Masks()...)
	}
	return masks
}

func (p PortRanges) texts() []string {
	texts := make([]string, len(p))
	for i, r := range p {
		texts[i] = r.String()
	}
	return texts
}

func (p PortRanges) String() string { return strings.Join(p.texts(), ",") }

// MarshalJSON writes a list of texts.
func (p PortRanges) MarshalJSON() ([]byte, error) { return json.Marshal(p.texts()) }

// UnmarshalJSON reads a list of numbers or texts.
func (p *PortRanges) UnmarshalJSON(b []byte) error {
	var items []json.RawMessage
	if err := json.Unmarshal(b, &items); err != nil {
		return Invalidf("ports: want a list such as [\"80\", \"8000-8099\"]")
	}
	var list PortRanges
	for _, item := range items {
		var text string
		if json.Unmarshal(item, &text) != nil {
			text = string(item)
		}
		r, err := ParsePortRange(text)
		if err != nil {
			return err
		}
		list = append(list, r)
	}
	*p = list
	return nil
}
