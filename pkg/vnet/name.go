package vnet

// Names appear in store keys, so they hold no slash; see checkName for the rule.
type (
	// TenantName names a tenant.
	TenantName string
	// NetworkName names a network within its tenant.
	NetworkName string
	// GroupName names a group of service functions within its tenant.
	GroupName string
	// ChainName names a chain within its tenant.
	ChainName string
)

const maxName = 63 // a Kubernetes namespace (RFC 1123 label) fits

// Validate reports whether n can name a tenant.
func (n TenantName) Validate() error { return checkName("tenant", string(n)) }

// Validate reports whether n can name a network.
func (n NetworkName) Validate() error { return checkName("network", string(n)) }

// Validate reports whether n can name a group.
func (n GroupName) Validate() error { return checkName("group", string(n)) }

// Validate reports whether n can name a chain.
func (n ChainName) Validate() error { return checkName("chain", string(n)) }

// checkName: 1 to 63 letters, digits, '-', '_' and '.', the first a letter or digit.
func checkName(what, name string) error {
	switch {
	case name == "":
		return Invalidf("%s is missing", what)
	case len(name) > maxName:
		return Invalidf("%s %.20q… has %d characters: at most %d are allowed", what, name, len(name), maxName)
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '.'):
		default:
			return Invalidf("%s %q: character %q at %d is not allowed (letters, digits and, not first, - _ .)", what, name, string(name[i]), i+1)
		}
	}
	return nil
}
