package veth

import (
	"context"
	"testing"
	"time"
)

// Whoever watches is told what stands, and of each change: a container that sets its end down, and the end of the cable.
func TestWatchTellsOfEachChange(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)
	stop, end := context.WithCancel(ctx(t))
	defer end()
	changes, err := Watch(stop, "tenet:")
	must(t, err)
	awaits := func(works bool) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case got, ok := <-changes:
				if !ok || got.Name != c.Host || got.Alias != c.Alias {
					t.Fatalf("told of %+v, %v", got, ok)
				}
				if got.Works == works {
					return
				}
			case <-late:
				t.Fatalf("not told that it works: %v", works)
			}
		}
	}
	awaits(true)
	w.runIn("ip", "link", "set", c.Container, "down")
	awaits(false)
	if got, err := List(ctx(t), "tenet:"); err != nil || len(got) != 1 || !got[0].Up || got[0].Works {
		t.Errorf("List says %+v, %v of a link whose other end is down", got, err)
	}
	w.runIn("ip", "link", "set", c.Container, "up")
	awaits(true)
	must(t, Remove(ctx(t), c.Host))
	awaits(false)
	end()
	for range changes { // until it is closed
	}
}
