package lab

import "testing"

// A Watched function is one with what comes in by each of its ports.
type Watched struct {
	*Function

	Forward, Back *Capture
}

// Watch begins to watch a function.
func Watch(f *Function) *Watched { return &Watched{f, f.In.Capture(), f.Out.Capture()} }

// Saw is how often the function was given the token forward, and back.
func (f *Watched) Saw(token string) [2]int {
	return [2]int{f.Forward.Count(token), f.Back.Count(token)}
}

// Sees fails the test unless the function has been given the token so often, soon.
func (f *Watched) Sees(tb testing.TB, token string, forward, back int) {
	tb.Helper()
	want := [2]int{forward, back}
	if !Within(Patience()/10, func() bool { return f.Saw(token) == want }) {
		tb.Errorf("%s saw %q %v times, forward and back, want %v", f.In.ID, token, f.Saw(token), want)
	}
}

// SeenBy says something, fails the test unless the functions have been given it just so often, forward as well as back, and
// returns the token that was said.
func SeenBy(tb testing.TB, what string, say func(token string) error, functions map[*Watched]int) string {
	tb.Helper()
	said := PingToken(what)
	Must(tb, say(said))
	for f, n := range functions {
		f.Sees(tb, said, n, n)
	}
	return said
}

// Hops are the hops that the tags of frames with the token say.
func (k *Capture) Hops(token string) []byte {
	var list []byte
	for _, frame := range k.Frames(With(token)) {
		list = append(list, frame[4])
	}
	return list
}
