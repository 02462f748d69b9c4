package gateway

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Drops counts the packets that the table has dropped since it first stood, by
// chain: "guard", "forward" and "input" (see newTable). Nil without a table.
func Drops() (map[string]uint64, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("count what the gateway drops: %w", unsupported(err))
	}
	defer conn.CloseLasting() //nolint:errcheck // a netlink socket has nothing to lose
	var drops map[string]uint64
	for _, name := range []string{"guard", "forward", "input"} {
		t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
		rules, err := conn.GetRules(t, &nftables.Chain{Name: name})
		if err != nil {
			return nil, fmt.Errorf("count what the gateway drops: %w", err)
		}
		for _, c := range counters(rules) {
			if drops == nil {
				drops = map[string]uint64{}
			}
			drops[name] += c.Packets
		}
	}
	return drops, nil
}

func counters(rules []*nftables.Rule) []*expr.Counter {
	var all []*expr.Counter
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				all = append(all, c)
			}
		}
	}
	return all
}

// count makes the counters of t go on from those of the kernel's table, as far
// as its chains have as many. What is counted meanwhile is lost, no more.
func (t *table) count(conn *nftables.Conn) {
	for _, c := range t.chains {
		var ours []*expr.Counter
		for _, r := range c.rules {
			ours = append(ours, counters([]*nftables.Rule{{Exprs: r.exprs}})...)
		}
		if len(ours) == 0 {
			continue
		}
		standing, err := conn.GetRules(t.Table, c.Chain)
		if err != nil {
			continue
		}
		if theirs := counters(standing); len(theirs) == len(ours) {
			for i := range ours {
				*ours[i] = *theirs[i]
			}
		}
	}
}
