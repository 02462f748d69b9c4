// Package openflow speaks OpenFlow 1.5 (wire version 0x06) with the Nicira extensions over the management socket
// that Open vSwitch opens for each bridge, <rundir>/<bridge>.mgmt: no exec, no ovs-ofctl.
//
// It knows the fields and actions that our pipeline uses and no others. Each has an encoder, a decoder and a String in
// the syntax of "ovs-ofctl -O OpenFlow15 --no-stats --no-names dump-flows", held against the real tool by the tests.
// What a foreign flow brings beyond that is kept as bytes, so that such a flow can be seen and deleted, and differs
// from every flow of ours. The same goes for groups.
//
// Flows and groups are written in bundles (Conn.Commit): all of them or none. Meters are not (Conn.PutMeters). Sources
// of the wire format: the OpenFlow Switch Specification 1.5.1 (section numbers in the comments) and Open vSwitch's
// nicira-ext.h, netronome-ext.h, meta-flow.h, ofp-actions.c.
package openflow
