// Package cluster holds the end-to-end tests of nodes that are one of many: each a network namespace with its own Open
// vSwitch and tenetd, on a real etcd.
package cluster

import (
	"os"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// Prefixes of most tests: one of each family.
const (
	web4 = "10.0.0.0/24"
	web6 = "fd00:1::/64"
	db4  = "10.0.1.0/24"
	db6  = "fd00:2::/64"
)
