package main

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A quantity is a row of part scale's table.
type quantity struct {
	name   string
	format string
	of     func(*scaled) []float64 // the median is shown
	paired bool                    // what has the same index is of one round: the growth is the median of the ratios
}

func alone(of func(*scaled) float64) func(*scaled) []float64 {
	return func(s *scaled) []float64 { return []float64{of(s)} }
}

// printClusters prints what a node takes, a column for each cluster, and how much more that is in the largest than in the
// smallest.
func (r *report) printClusters(to io.Writer) {
	first, last := r.Scale[0], r.Scale[len(r.Scale)-1]
	t := newTable(to, fmt.Sprintf("A node of a cluster, with a container in %d networks of as many tenants; ms if not told, medians", networksHere))
	header := table.Row{"other nodes"}
	for _, s := range r.Scale {
		header = append(header, s.Nodes)
	}
	t.AppendHeader(append(header, fmt.Sprintf("%d to %d", last.Nodes, first.Nodes)))
	for _, q := range quantities() {
		row := table.Row{q.name}
		for _, s := range r.Scale {
			row = append(row, fmt.Sprintf(q.format, median(q.of(s))))
		}
		grown := ratio(q.of(last), q.of(first))
		if q.paired {
			grown = fmt.Sprintf("%.2f", median(ratios(q.of(last), q.of(first))))
		}
		t.AppendRow(append(row, grown))
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, Align: text.AlignLeft}})
	t.Render()
}

func quantities() []quantity {
	plain := func(name, format string, of func(*scaled) float64) quantity {
		return quantity{name: name, format: format, of: alone(of)}
	}
	list := []quantity{
		plain("networks", "%.0f", func(s *scaled) float64 { return float64(s.Networks) }),
		plain("endpoints", "%.0f", func(s *scaled) float64 { return float64(s.Endpoints) }),
		plain("keys in etcd", "%.0f", func(s *scaled) float64 { return float64(s.Keys) }),
		plain("flows on the switch", "%.0f", func(s *scaled) float64 { return float64(s.Flows) }),
		plain("tenetd starts with nothing", "%.0f", func(s *scaled) float64 { return s.Empty.took() }),
		{name: "… with what it had", format: "%.0f", of: func(s *scaled) []float64 { return each(s.Starts, begun.took) }},
		{name: "… on a switch without its flows", format: "%.0f", of: func(s *scaled) []float64 { return each(s.Forgot, begun.took) }},
		{name: "its memory then, MB", format: "%.0f", of: func(s *scaled) []float64 { return each(s.Forgot, func(b begun) float64 { return b.RSS }) }},
		plain("its memory after the changes, MB", "%.0f", func(s *scaled) float64 { return s.Changes.RSS }),
		plain("the most it ever had, MB", "%.0f", (*scaled).mostMB),
	}
	of := func(name string, share float64, values func(*scaled) []float64) quantity {
		return plain(name, "%.1f", func(s *scaled) float64 { return quantile(values(s), share) })
	}
	took := func(s *scaled) []float64 { return s.Changes.Took }
	puts := func(s *scaled) []float64 { return s.Changes.Puts }
	disk := func(s *scaled) []float64 { return s.Changes.Disk }
	return append(list,
		of(fmt.Sprintf("change to flow at %d/s, p50", changesPerSecond), 0.5, took), of("… p99", 0.99, took), of("… most", 1, took),
		of("… of it until etcd has it, p50", 0.5, puts), of("… p99", 0.99, puts),
		of("… of it that the flow is seen late, p99", 0.99, func(s *scaled) []float64 { return s.Changes.Seen }),
		of("what a write to the store waits for the disk, p50", 0.5, disk), of("… p99", 0.99, disk),
		of("how late a change begins, p99", 0.99, func(s *scaled) []float64 { return s.Changes.Late }),
		plain("seconds in which the machine had time", "%.0f", func(s *scaled) float64 { n, _ := s.Changes.calm(); return float64(n) }),
		of("… change to flow in them, p99", 0.99, func(s *scaled) []float64 { _, took := s.Changes.calm(); return took }),
		plain("CPUs of tenetd meanwhile", "%.2f", func(s *scaled) float64 { return s.Changes.CPU }),
		plain("CPUs of ovs-vswitchd", "%.2f", func(s *scaled) float64 { return s.Changes.SwitchCPU }),
		quantity{name: "ADD", format: "%.1f", of: func(s *scaled) []float64 { return walls(s.Add) }, paired: true},
		quantity{name: "DEL", format: "%.1f", of: func(s *scaled) []float64 { return walls(s.Del) }, paired: true},
		quantity{name: "ADD, CPU of the plugin", format: "%.1f", of: func(s *scaled) []float64 { return cpus(s.Add) }, paired: true},
		quantity{name: "DEL, CPU of the plugin", format: "%.1f", of: func(s *scaled) []float64 { return cpus(s.Del) }, paired: true},
		plain("etcd: requests for an ADD and its DEL", "%.2f", func(s *scaled) float64 { return s.Work.Requests }),
		plain("… reads", "%.2f", func(s *scaled) float64 { return s.Work.Ranges }),
		plain("… records written or deleted", "%.2f", func(s *scaled) float64 { return s.Work.Puts + s.Work.Deletes }),
		plain("… KB sent", "%.1f", func(s *scaled) float64 { return s.Work.SentKB }),
		quantity{name: "first ADD in a network", format: "%.1f", of: func(s *scaled) []float64 { return walls(s.First) }, paired: true},
		plain("etcd: requests for it", "%.2f", func(s *scaled) float64 { return s.FirstWork.Requests }),
		plain("… reads", "%.2f", func(s *scaled) float64 { return s.FirstWork.Ranges }),
		plain("… records written", "%.2f", func(s *scaled) float64 { return s.FirstWork.Puts }),
		plain("… KB sent", "%.1f", func(s *scaled) float64 { return s.FirstWork.SentKB }),
		plain("etcd: requests in a second when nothing happens", "%.2f", func(s *scaled) float64 { return s.Idle.Requests }),
	)
}

// mostMB is the most that any tenetd had resident.
func (s *scaled) mostMB() float64 {
	most := max(s.Empty.HWM, s.Changes.HWM)
	for _, all := range [][]begun{s.Starts, s.Forgot} {
		for _, b := range all {
			most = max(most, b.HWM)
		}
	}
	return most
}
