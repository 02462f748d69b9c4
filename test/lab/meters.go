package lab

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Meters are the bridge's meters, one a line.
func (h *Host) Meters() []string {
	h.tb.Helper()
	text := strings.ReplaceAll(h.OFCtl("dump-meters"), "bands=\n", "bands=")
	meters := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !strings.HasPrefix(line, "meter=") })
	slices.Sort(meters)
	return meters
}

// Metered is how many packets have come to the bridge's meters since they were put.
func (h *Host) Metered() int {
	h.tb.Helper()
	sum := 0
	for _, m := range regexp.MustCompile(`packet_in_count:(\d+)`).FindAllStringSubmatch(h.OFCtl("meter-stats"), -1) {
		n, err := strconv.Atoi(m[1])
		Must(h.tb, err)
		sum += n
	}
	return sum
}
