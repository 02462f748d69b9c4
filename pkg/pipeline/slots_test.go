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
