package store_test

import "github.com/tenet-cni/tenet/pkg/store/storetest"

// The steps of which this package's tests are made, too.
var (
	put       = storetest.Put
	wants     = storetest.Wants
	increment = storetest.Increment
	keys      = storetest.Keys
	inTurn    = storetest.InTurn
	update    = storetest.Update
	view      = storetest.View
	wantAll   = storetest.WantAll
)
