package main

import "testing"

// A path that only stands for the connections that have it may lead through a function that has gone.
func TestAPathIsShownByItsFunctions(t *testing.T) {
	for want, containers := range map[string][]string{
		"fw-1 → ids-1":                      {"fw-1", "ids-1"},
		"fw-1 → one that has gone":          {"fw-1", ""},
		"one that has gone":                 {""},
		"past dead functions that are open": {},
	} {
		if got := wayText(containers); got != want {
			t.Errorf("%q is shown as %q, want %q", containers, got, want)
		}
	}
}
