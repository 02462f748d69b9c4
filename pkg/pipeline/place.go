package pipeline

import "github.com/tenet-cni/tenet/pkg/vnet"

// PlaceIn reads metadata: the number of the tenant and the network that a packet is in, each 0
// where it is not set.
func PlaceIn(metadata uint64) (uint32, vnet.VNI) {
	return uint32(metadata & tenantMask >> 32), vnet.VNI(metadata & networkMask)
}
