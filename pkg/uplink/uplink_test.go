package uplink_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

// host puts the test's goroutine into a network namespace of its own, with the links eth1 (of which the wire is the
// other end), br-lan and eth0.
func host(t *testing.T) {
	t.Helper()
	netnstest.Enter(t)
	for _, c := range []string{
		"link set lo up", "link add eth1 address 02:00:00:00:00:01 type veth peer name wire", "link set wire up", "link set eth1 up",
		"link add br-lan address 02:00:00:00:00:01 type veth peer name patch", "link set patch up", "link add eth0 type veth peer name wire0", "link set wire0 up", "link set eth0 up", "addr add 192.0.2.9/24 dev eth0",
	} {
		ip(t, c)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// dress gives eth1 one of everything that a host may have on a NIC.
func dress(t *testing.T) {
	t.Helper()
	for _, c := range []string{
		"addr add 10.1.0.5/24 brd + dev eth1 label eth1:web metric 77",
		"addr add 10.1.0.6/24 dev eth1",
		"addr add 10.1.9.5/32 peer 10.1.9.6/32 dev eth1",
		"addr add 10.2.0.5/24 dev eth1 noprefixroute valid_lft 3000 preferred_lft 2000",
		"route add 10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.5 metric 100",
		"route add default via 10.2.0.1 dev eth1 proto dhcp src 10.2.0.5 metric 100",
		"route add default via 10.1.0.1 dev eth1 mtu lock 1400",
		"route add 10.9.0.0/16 via 10.77.0.1 dev eth1 onlink",
		"route add 10.8.0.0/16 dev eth1 table 100 metric 3",
		"route add default via 10.1.0.1 dev eth1 table 100",
		"route add 10.7.0.0/16 nexthop via 192.0.2.1 dev eth0 weight 2 nexthop via 10.1.0.1 dev eth1 weight 3",
		"-6 addr add fd01::5/64 dev eth1 nodad",
		"-6 addr add fd02::5/64 dev eth1 valid_lft 3000 preferred_lft 0",
		"-6 addr add fd03::5/128 dev eth1 metric 5",
		"-6 route add default via fe80::1 dev eth1 proto ra metric 1024 pref high expires 1800",
		"-6 route add fd09::/48 via fd01::1 dev eth1 src fd01::5",
		"-6 route add fd08::/48 dev eth1 table 100",
	} {
		ip(t, c)
	}
	settle(t, "eth1")
}

// settle waits until IPv6 has probed for the link's addresses.
func settle(t *testing.T, link string) {
	t.Helper()
	for range 100000 {
		if ip(t, "-6 addr show tentative dev "+link) == "" {
			return
		}
	}
	t.Fatalf("%s stays tentative", link)
}

var seconds = regexp.MustCompile(`\d{4}sec`)

// has is all that the host has on a link, without what each link has of its own, the link named LINK.
func has(t *testing.T, link string) string {
	t.Helper()
	var all []string
	take := func(what, text string) {
		for line := range strings.Lines(text) {
			line = strings.Join(strings.Fields(seconds.ReplaceAllString(line, "SECS")), " ")
			if line != "" && !strings.Contains(line, "fe80::/") && !strings.Contains(line, "multicast ff00") && !strings.Contains(line, "table local") && strings.Contains(line, link) {
				all = append(all, what+" "+strings.ReplaceAll(strings.ReplaceAll(line, " linkdown", ""), link, "LINK"))
			}
		}
	}
	take("addr", strings.ReplaceAll(ip(t, "-o -d addr show scope global dev "+link), "\\", " "))
	take("route", ip(t, "-o -4 -d route show table all"))
	take("route6", ip(t, "-o -6 -d route show table all"))
	for i := range all {
		all[i] = regexp.MustCompile(`^addr \d+: `).ReplaceAllString(all[i], "addr ")
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func read(t *testing.T, link string) uplink.State {
	t.Helper()
	s, err := uplink.Read(t.Context(), link)
	must(t, err)
	// It outlives the process that read it.
	b, err := json.Marshal(s)
	must(t, err)
	s = uplink.State{}
	must(t, json.Unmarshal(b, &s))
	return s
}

func move(t *testing.T, s uplink.State, from, to string) {
	t.Helper()
	must(t, s.Address(t.Context(), to))
	must(t, s.Route(t.Context(), to))
	must(t, uplink.Strip(t.Context(), from))
}

func wantSame(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: it has\n%s\nwhere it should have\n%s", what, got, want)
	}
}

func TestTheHostKeepsAllThatItHasThereAndBack(t *testing.T) {
	host(t)
	dress(t)
	before := has(t, "eth1")
	if strings.Count(before, "\n") < 20 {
		t.Fatalf("there is little to move:\n%s", before)
	}
	s := read(t, "eth1")
	move(t, s, "eth1", "br-lan")
	wantSame(t, "the bridge's link", has(t, "br-lan"), before)
	// A way by two links that one is gone from names the other.
	wantSame(t, "the NIC", has(t, "eth1"), "")
	if !read(t, "eth1").Empty() || read(t, "br-lan").Empty() {
		t.Error("Empty says otherwise")
	}
	if missing, err := s.Missing(t.Context(), "br-lan"); err != nil || len(missing) != 0 {
		t.Errorf("missing: %v, %v", missing, err)
	}
	if missing, err := s.Missing(t.Context(), "eth1"); err != nil || len(missing) != len(s.Addresses)+len(s.Routes) {
		t.Errorf("missing: %v, %v", missing, err)
	}
	move(t, read(t, "br-lan"), "br-lan", "eth1")
	wantSame(t, "the NIC", has(t, "eth1"), before)
	must(t, read(t, "eth1").Address(t.Context(), "eth1"))
	must(t, read(t, "eth1").Route(t.Context(), "eth1"))
	wantSame(t, "the NIC to which it was moved from itself", has(t, "eth1"), before)
	wantSame(t, "the bridge's link", has(t, "br-lan"), "")
}

func TestAMoveThatWasCutAnywhereIsFinished(t *testing.T) {
	host(t)
	dress(t)
	before := has(t, "eth1")
	s := read(t, "eth1")
	from, to := "eth1", "br-lan"
	steps := len(s.Addresses) + len(s.Routes)
	for cut := range 2 * steps {
		slices.SortStableFunc(s.Routes, func(a, b uplink.Entry) int { // as they are made: what others need comes first
			needs := func(e uplink.Entry) int { return strings.Count(e.Text, " via ") + strings.Count(e.Text, " ways") }
			return needs(a) - needs(b)
		})
		part := s // what was done of it when it was cut
		part.Addresses = s.Addresses[:min(cut, len(s.Addresses))]
		part.Routes = s.Routes[:max(0, min(cut-len(s.Addresses), len(s.Routes)))]
		must(t, part.Address(t.Context(), to))
		must(t, part.Route(t.Context(), to))
		for _, e := range s.Addresses[:max(0, min(cut-steps, len(s.Addresses)))] {
			// Taken in part: the kernel takes routes along.
			_ = exec.CommandContext(t.Context(), "ip", "addr", "del", strings.Replace(e.Text, " peer", " peer", 1), "dev", from).Run()
		}
		now, err := read(t, from).With(s)
		must(t, err)
		move(t, now, from, to)
		wantSame(t, fmt.Sprintf("after %d steps, %s", cut, to), has(t, to), before)
		wantSame(t, fmt.Sprintf("after %d steps, %s", cut, from), has(t, from), "")
		s = read(t, to)
		from, to = to, from
	}
}

func TestAnotherLinksRouteOfTheSameMetricStays(t *testing.T) {
	for name, order := range map[string][]string{
		"the other first": {"route append default via 192.0.2.1 dev eth0", "route append default via 10.1.0.1 dev eth1"},
		"the other last":  {"route append default via 10.1.0.1 dev eth1", "route append default via 192.0.2.1 dev eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			host(t)
			ip(t, "addr add 10.1.0.5/24 dev eth1")
			ip(t, "-6 addr add fd01::5/64 dev eth1 nodad")
			ip(t, "-6 route add fd05::/64 dev eth0")
			ip(t, "-6 route append fd05::/64 dev eth1")
			for _, c := range order {
				ip(t, c)
			}
			routes := func() string { return ip(t, "route show default") + ip(t, "-6 route show fd05::/64") }
			before := routes()
			if strings.Count(before, "eth0") != 2 || strings.Count(before, "eth1") != 2 {
				t.Fatal(before)
			}
			move(t, read(t, "eth1"), "eth1", "br-lan")
			now := strings.ReplaceAll(routes(), "br-lan", "eth1")
			sorted := func(s string) string {
				lines := strings.Split(s, "\n")
				slices.Sort(lines[2:]) // IPv6 has no order
				return strings.Join(lines, "\n")
			}
			wantSame(t, "routes", sorted(now), sorted(before))
		})
	}
}

func TestAnAddressThatRunsOutIsNotGivenAgain(t *testing.T) {
	host(t)
	ip(t, "addr add 10.1.0.5/24 dev eth1 valid_lft 600 preferred_lft 300")
	s := read(t, "eth1")
	s.Clock -= 400
	must(t, s.Address(t.Context(), "br-lan"))
	life := regexp.MustCompile(`valid_lft (\d+)sec preferred_lft (\d+)sec`).FindStringSubmatch(ip(t, "addr show dev br-lan"))
	if len(life) != 3 || len(life[1]) != 3 || life[1] > "200" || life[2] != "0" {
		t.Errorf("lifetimes %v", life)
	}
	must(t, uplink.Strip(t.Context(), "br-lan"))
	s.Clock -= 400
	must(t, s.Address(t.Context(), "br-lan"))
	if got := has(t, "br-lan"); got != "" {
		t.Errorf("an address whose lifetime is over: %s", got)
	}
}

func TestTheDefaultRouteIsSeen(t *testing.T) {
	host(t)
	ip(t, "addr add 10.1.0.5/24 dev eth1")
	ip(t, "route add 10.9.0.0/16 via 10.1.0.1")
	if read(t, "eth1").HasDefault() {
		t.Error("there is none")
	}
	for _, add := range []string{"route add default via 10.1.0.1", "-6 route add default via fe80::1 dev eth1"} {
		ip(t, add)
		if !read(t, "eth1").HasDefault() || read(t, "eth0").HasDefault() {
			t.Errorf("%s: not seen, or on another link", add)
		}
		ip(t, strings.Replace(add, "add", "del", 1))
	}
}

func TestALinkIsSilencedAndGetsItsOwnWaysBack(t *testing.T) {
	host(t)
	own := map[string]string{"ipv6/accept_ra": "2", "ipv6/use_tempaddr": "1", "ipv4/arp_announce": "2", "ipv4/rp_filter": "2"}
	for key, value := range own {
		family, name, _ := strings.Cut(key, "/")
		must(t, os.WriteFile("/proc/sys/net/"+family+"/conf/eth1/"+name, []byte(value), 0))
	}
	must(t, uplink.Settings{Offloads: []string{"gro"}}.Restore("eth1")) // as NICs have it
	before, err := uplink.ReadSettings("eth1")
	must(t, err)
	must(t, before.Apply("br-lan"))
	bridge, err := uplink.ReadSettings("br-lan")
	must(t, err)
	for key, value := range own {
		if bridge.Sysctls[key] != value {
			t.Errorf("the bridge's link has %s=%s, the NIC %s", key, bridge.Sysctls[key], value)
		}
	}
	if loud, err := uplink.Loud("eth1", true); err != nil || len(loud) == 0 {
		t.Errorf("%v, %v", loud, err)
	}
	must(t, uplink.Silence("eth1", true))
	if loud, err := uplink.Loud("eth1", true); err != nil || len(loud) != 0 {
		t.Errorf("still loud: %v, %v", loud, err)
	}
	must(t, before.Restore("eth1"))
	after, err := uplink.ReadSettings("eth1")
	must(t, err)
	if !maps.Equal(before.Sysctls, after.Sysctls) || !slices.Equal(before.Offloads, after.Offloads) {
		t.Errorf("before\n%v\nafter\n%v", before, after)
	}
}

func TestALinkThatIsNotThereIsToldAndHasNothingToTake(t *testing.T) {
	host(t)
	_, err := uplink.Read(t.Context(), "eth9")
	_, err2 := uplink.Look(t.Context(), "eth9")
	for _, err := range []error{err, err2, uplink.State{}.Address(t.Context(), "eth9"), uplink.State{}.Route(t.Context(), "eth9")} {
		if !errors.Is(err, uplink.ErrNotFound) || !strings.Contains(err.Error(), "eth9") {
			t.Errorf("%v", err)
		}
	}
	must(t, uplink.Strip(t.Context(), "eth9"))
}

func TestHereIsTheNamespaceThatTheCallerWorksIn(t *testing.T) {
	host(t)
	mine, err := uplink.Here()
	must(t, err)
	theirs, leave := make(chan string), make(chan struct{})
	go func() { // beside the test's thread, in another namespace: one of the two is not the main thread
		defer close(theirs)
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		other, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		here, err := uplink.Here()
		if err != nil {
			t.Error(err)
		}
		theirs <- here
		<-leave
	}()
	if other := <-theirs; other == mine {
		t.Errorf("two namespaces are both %s", mine)
	}
	if again, err := uplink.Here(); err != nil || again != mine {
		t.Errorf("it was %s and is %s, %v", mine, again, err)
	}
	close(leave)
	<-theirs
}
