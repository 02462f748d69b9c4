package pipeline

import (
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// However many paths there are, each has a slot of the hash, and the slots are as many as the switch makes.
func TestEachPathHasASlot(t *testing.T) {
	for n := 2; n <= vnet.MaxInstances; n++ {
		paths := make([]vnet.Path, n)
		for i := range paths {
			paths[i].Weight = 1 + i*i%100
		}
		sum := 0
		got := slots(paths)
		for i, s := range got {
			if s < 1 {
				t.Errorf("%d paths: path %d has %d slots", n, i, s)
			}
			sum += s
		}
		if sum < leastSlots || sum > mostSlots || sum&(sum-1) != 0 {
			t.Errorf("%d paths: %d slots", n, sum)
		}
		buckets := 0
		for _, parts := range weights(got) {
			for _, part := range parts {
				if part < 1 {
					t.Errorf("%d paths: a bucket of weight %d", n, part)
				}
			}
			buckets += len(parts)
		}
		if buckets < sum/4 {
			t.Errorf("%d paths: %d buckets for %d slots", n, buckets, sum)
		}
	}
}

// Weights that no plan makes, in a record that was damaged, do no harm.
func TestSlotsOfWeightsThatMakeNoSense(t *testing.T) {
	for _, weights := range [][]int{{}, {0}, {0, 0}, {-1, 1}, {1 << 62, 1 << 62, 1 << 62, 1 << 62}, make([]int, 2*mostSlots)} {
		paths := make([]vnet.Path, len(weights))
		for i, w := range weights {
			paths[i].Weight = w
		}
		for i, s := range slots(paths) {
			if s < 1 || s > mostSlots {
				t.Errorf("weights %v: path %d has %d slots", weights, i, s)
			}
		}
	}
}

// Nodes of a cluster may have more instances than the switch can choose from: it chooses from as many as it can.
func TestPathsAreNoMoreThanTheSwitchCanChooseFrom(t *testing.T) {
	c := chain{Chain: Chain{Here: "n1", Peers: map[vnet.NodeName]vnet.Peer{"n2": {}}}}
	leg := vnet.Leg{Number: 1}
	for i := range uint32(mostSlots + 50) {
		leg.Paths = append(leg.Paths, vnet.Path{ID: vnet.PathID(i + 1), Weight: 1, Hops: []vnet.Hop{{Group: "fw", Instance: i + 1, Node: "n2"}}})
	}
	groups, _ := c.choose(leg)
	if n := len(groups[0].Buckets); n != mostSlots {
		t.Errorf("the switch chooses from %d", n)
	}
}
