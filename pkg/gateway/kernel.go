package gateway

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// elementsPerMessage keeps a list of elements below the 64 KiB that a
	// netlink attribute can have; one takes less than 100 bytes.
	elementsPerMessage = 500
	// readTries is how often reading the table is tried.
	readTries = 10
	// batchBytes is room for a batch with tens of thousands of elements, which
	// is sent as one.
	batchBytes = 16 << 20
)

// planTable compares the kernel's table with that of s. The table is replaced
// as a whole or not at all.
func planTable(s State) ([]change, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, unsupported(err)
	}
	defer conn.CloseLasting() //nolint:errcheck // a netlink socket has nothing to lose
	want := newTable(s)
	differs, err := want.differs(conn)
	// A table that is being replaced by somebody else may not be found for a
	// moment, and the library does not tell this error from others.
	for try := 1; err != nil && try < readTries; try++ {
		differs, err = want.differs(conn)
	}
	if err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", tableName, unsupported(err))
	}
	if len(differs) == 0 {
		return nil, nil
	}
	return []change{{what: "replace nftables table " + tableName, differs: differs, do: want.replace}}, nil
}

// differs says where the kernel's table is not t.
func (t *table) differs(conn *nftables.Conn) ([]string, error) {
	_, err := conn.ListTableOfFamily(t.Name, t.Family)
	if errors.Is(err, unix.ENOENT) {
		return []string{"there is no nftables table " + t.Name}, nil
	}
	if err != nil {
		return nil, err
	}
	var differs []string
	for _, c := range t.chains {
		d, err := c.differs(conn)
		if err != nil {
			return nil, err
		}
		for _, d := range d {
			differs = append(differs, fmt.Sprintf("nftables table %s: chain %s %s", t.Name, c.Name, d))
		}
	}
	standing, err := conn.GetSets(t.Table)
	if err != nil {
		return nil, err
	}
	byName := map[string]*nftables.Set{}
	for _, s := range standing {
		byName[s.Name] = s
	}
	for _, s := range t.sets {
		d, err := s.differs(conn, byName[s.Name])
		if err != nil {
			return nil, err
		}
		for _, d := range d {
			differs = append(differs, fmt.Sprintf("nftables table %s: set %s %s", t.Name, s.Name, d))
		}
	}
	return differs, nil
}

// differs says where the kernel's chain is not c.
func (c *chain) differs(conn *nftables.Conn) ([]string, error) {
	all, err := conn.ListChain(c.Table, c.Name)
	if err != nil {
		return []string{"is missing"}, nil //nolint:nilerr // the library makes all errors one; what is worse shows at the next call
	}
	if all.Type != c.Type || !reflect.DeepEqual(all.Hooknum, c.Hooknum) || !reflect.DeepEqual(all.Priority, c.Priority) || !reflect.DeepEqual(all.Policy, c.Policy) {
		return []string{"is of another kind"}, nil
	}
	rules, err := conn.GetRules(c.Table, c.Chain)
	if err != nil {
		return nil, err
	}
	if len(rules) != len(c.rules) {
		return []string{fmt.Sprintf("has %d rules, not %d", len(rules), len(c.rules))}, nil
	}
	var differs []string
	for i, r := range rules {
		if !reflect.DeepEqual(normal(r.Exprs), normal(c.rules[i].exprs)) {
			differs = append(differs, fmt.Sprintf("has another rule %d", i+1))
		}
	}
	return differs, nil
}

// normal is a rule's expressions without what the kernel changes or adds.
func normal(exprs []expr.Any) []expr.Any {
	var all []expr.Any
	for _, e := range exprs {
		switch was := e.(type) {
		case *expr.Counter:
			e = &expr.Counter{}
		case *expr.Lookup:
			is := *was
			is.SetID = 0 // of the batch
			e = &is
		case *expr.NAT:
			is := *was
			is.Specified = false // newer kernels say so where there is a port
			e = &is
		}
		all = append(all, e)
	}
	return all
}

// differs says where the kernel's set, nil if there is none, is not s.
func (s *set) differs(conn *nftables.Conn, standing *nftables.Set) ([]string, error) {
	if standing == nil {
		return []string{"is missing"}, nil
	}
	if standing.IsMap != s.IsMap || standing.Interval != s.Interval ||
		standing.KeyType.GetNFTMagic() != s.KeyType.GetNFTMagic() || s.IsMap && standing.DataType.GetNFTMagic() != s.DataType.GetNFTMagic() {
		return []string{"is of another kind"}, nil
	}
	has, err := conn.GetSetElements(s.Set)
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, e := range has {
		left[identity(e)] = true
	}
	var differs []string
	for _, e := range s.elements {
		id := identity(e.SetElement)
		if !left[id] {
			differs = append(differs, "lacks "+e.words)
		}
		delete(left, id)
	}
	if len(left) > 0 {
		differs = append(differs, fmt.Sprintf("has %d elements that nobody needs", len(left)))
	}
	return differs, nil
}

func identity(e nftables.SetElement) string {
	return fmt.Sprint(hex.EncodeToString(e.Key), " ", hex.EncodeToString(e.Val), " ", e.IntervalEnd)
}

// replace puts t in the place of the kernel's table, in one batch. Connections
// that are known go on as they were translated, and counters count on.
func (t *table) replace() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetWriteBuffer(batchBytes) }))
	if err != nil {
		return unsupported(err)
	}
	defer conn.CloseLasting() //nolint:errcheck // a netlink socket has nothing to lose
	t.count(conn)
	conn.AddTable(t.Table) // so that there is one to delete
	conn.DelTable(t.Table)
	conn.AddTable(t.Table)
	for _, s := range t.sets {
		var all []nftables.SetElement
		for _, e := range s.elements {
			all = append(all, e.SetElement)
		}
		first := min(len(all), elementsPerMessage)
		if err := conn.AddSet(s.Set, all[:first]); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
		for all = all[first:]; len(all) > 0; all = all[first:] {
			first = min(len(all), elementsPerMessage)
			if err := conn.SetAddElements(s.Set, all[:first]); err != nil {
				return fmt.Errorf("set %s: %w", s.Name, err)
			}
		}
	}
	for _, c := range t.chains {
		conn.AddChain(c.Chain)
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			add := &nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: r.exprs}
			if r.comment != "" {
				add.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
			}
			conn.AddRule(add)
		}
	}
	return unsupported(conn.Flush())
}

// removeTable removes the kernel's table.
func removeTable() error {
	conn, err := nftables.New()
	if err != nil {
		return unsupported(err)
	}
	conn.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove nftables table %s: %w", tableName, unsupported(err))
	}
	return nil
}

// unsupported turns the errors of a kernel that lacks something into
// ErrUnsupported.
func unsupported(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: nftables (CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET): %w", ErrUnsupported, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: nftables with CONFIG_NFT_CT, CONFIG_NFT_NAT, CONFIG_NFT_MASQ and CONFIG_NFT_FIB_INET: %w", ErrUnsupported, err)
	}
	return err
}
