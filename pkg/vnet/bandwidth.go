package vnet

// Bandwidth limits what an endpoint receives and sends; a zero limit is none.
type Bandwidth struct {
	Ingress Limit `json:"ingress,omitzero"` // what the container receives
	Egress  Limit `json:"egress,omitzero"`  // what it sends
}

// Limit is a rate with the burst that may exceed it.
type Limit struct {
	Rate  uint64 `json:"rate"`            // bits per second
	Burst uint64 `json:"burst,omitempty"` // bits; 0: as much as lets TCP reach the rate
	// Meter is the switch's number for the limit, given when the endpoint is recorded.
	Meter uint32 `json:"meter,omitempty"`
}

// The least limit passes a packet each second or two; the highest is far beyond any link.
const (
	minRate = 8_000
	maxRate = 1_000_000_000_000
)

// Normal checks what was asked for.
func (b Bandwidth) Normal() (Bandwidth, error) {
	for _, l := range []struct {
		name string
		*Limit
	}{{"ingress", &b.Ingress}, {"egress", &b.Egress}} {
		switch {
		case *l.Limit == Limit{}:
		case l.Rate == 0:
			return b, Invalidf("bandwidth: %sRate is 0, with a burst of %d bits: nothing would pass", l.name, l.Burst)
		case l.Rate < minRate || l.Rate > maxRate:
			return b, Invalidf("bandwidth: %sRate %d: must be %d to %d bits per second", l.name, l.Rate, minRate, maxRate)
		}
	}
	return b, nil
}
