package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenet-cni/tenet/pkg/cluster"
)

// exposition is a report as Prometheus reads it. What a report leaves out has no samples.
type exposition cluster.Report

// Describe describes nothing: which samples there are is the report's matter.
func (exposition) Describe(chan<- *prometheus.Desc) {}

// Collect tells the report.
func (e exposition) Collect(to chan<- prometheus.Metric) {
	put := samples(to)
	put(prometheus.GaugeValue, "build_info", "Always 1; the version of tenetd is its label.", "version").add(1, e.Version)
	put(prometheus.GaugeValue, "healthy", "1 if the switch answers and the store can be read, as /healthz says.").add(number(len(e.Problems) == 0))
	endpoints := put(prometheus.GaugeValue, "endpoints", "Endpoints of this node.", "tenant", "network")
	for _, c := range e.Endpoints {
		endpoints.add(float64(c.Endpoints), string(c.Tenant), string(c.Network))
	}
	blocks := put(prometheus.GaugeValue, "blocks", "Blocks of addresses that this node has of its cluster's: held, or returning.", "tenant", "network", "state")
	for _, c := range e.Blocks {
		blocks.add(float64(c.Blocks), string(c.Tenant), string(c.Network), string(c.State))
	}
	functions := put(prometheus.GaugeValue, "function_instances", "This node's instances of service functions: serves, drained, down, hung, or waits for its other port.", "tenant", "group", "state")
	for _, c := range e.Functions {
		functions.add(float64(c.Instances), string(c.Tenant), string(c.Group), c.State)
	}
	drops := put(prometheus.CounterValue, "drops_total", "Packets that the switch dropped since tenetd began, by reason.", "reason")
	for _, d := range e.Drops {
		drops.add(float64(d.Total), d.Reason)
	}
	e.work(to)
	if e.Cluster != nil {
		e.cluster(to)
	}
}

// work tells what tenetd has done.
func (e exposition) work(to chan<- prometheus.Metric) {
	put := samples(to)
	within := map[float64]uint64{}
	for _, w := range e.Work.Syncs.Within {
		within[w.Seconds] = w.Count
	}
	to <- prometheus.MustNewConstHistogram(desc("sync_seconds", "How long tenetd took to make the flows of a bridge, or of its chains, agree with the store."),
		e.Work.Syncs.Count, e.Work.Syncs.Seconds, within)
	drift := put(prometheus.CounterValue, "drift_total", "Differences from the store that tenetd found when it looked at the whole, by what it was.", "what")
	for what, n := range e.Work.Drift {
		drift.add(float64(n), what)
	}
	put(prometheus.CounterValue, "restores_total", "How often tenetd brought the flows of all bridges up to date: once when it begins, and after each restart of ovs-vswitchd.").add(float64(e.Work.Restores))
	put(prometheus.CounterValue, "bundle_errors_total", "Bundles of flows that the switch refused, or did not answer to.").add(float64(e.Work.BundleErrors))
}

// cluster tells how the node is doing in its cluster.
func (e exposition) cluster(to chan<- prometheus.Metric) {
	put := samples(to)
	c := e.Cluster
	put(prometheus.GaugeValue, "etcd_connected", "1 if etcd answers.").add(number(c.Connected))
	put(prometheus.GaugeValue, "etcd_lag_seconds", "For how long the node may not have what etcd has: it does not answer, or what came from it is still being taken over.").add(c.Lag)
	put(prometheus.GaugeValue, "etcd_revision", "The latest revision of etcd of which the node has something.").add(float64(c.Revision))
	nodes := put(prometheus.GaugeValue, "nodes", "Nodes of the cluster, as this one knows them: runs, silent or off.", "state")
	nodes.add(float64(c.Nodes-len(c.Silent)-len(c.Off)), "runs")
	nodes.add(float64(len(c.Silent)), "silent")
	nodes.add(float64(len(c.Off)), "off")
	put(prometheus.GaugeValue, "unpublished_endpoints", "Endpoints of this node that the other nodes have not been told of, or not as they are now.").add(float64(c.Unpublished))
}

// samples begin metrics of one value for each combination of labels.
func samples(to chan<- prometheus.Metric) func(t prometheus.ValueType, name, help string, labels ...string) metric {
	return func(t prometheus.ValueType, name, help string, labels ...string) metric {
		return metric{to, desc(name, help, labels...), t}
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tenet_"+name, help, labels, nil)
}

type metric struct {
	to   chan<- prometheus.Metric
	desc *prometheus.Desc
	typ  prometheus.ValueType
}

func (m metric) add(value float64, labels ...string) {
	m.to <- prometheus.MustNewConstMetric(m.desc, m.typ, value, labels...)
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
