package vnet

import (
	"net/netip"
	"slices"
	"strings"
)

// DNS is what containers of a network are told about name resolution, as in CNI's result.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// IsZero reports whether nothing is said.
func (d DNS) IsZero() bool { return d.equal(DNS{}) }

func (d DNS) equal(o DNS) bool {
	return d.Domain == o.Domain && slices.Equal(d.Nameservers, o.Nameservers) && slices.Equal(d.Search, o.Search) && slices.Equal(d.Options, o.Options)
}

// validate keeps out what would break a resolv.conf that it is written to.
func (d DNS) validate() error {
	for _, server := range d.Nameservers {
		if _, err := netip.ParseAddr(server); err != nil {
			return Invalidf("dns: nameserver %q: not an address", server)
		}
	}
	for _, word := range slices.Concat([]string{d.Domain}, d.Search, d.Options) {
		if strings.ContainsAny(word, " \t\r\n") {
			return Invalidf("dns: %q: must be one word", word)
		}
	}
	return nil
}
