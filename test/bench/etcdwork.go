package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// etcdWork is what etcd has done, by its own count.
type etcdWork struct {
	Requests float64 `json:"requests"` // of all kinds but watches and what keeps leases, which are streams
	Ranges   float64 `json:"ranges"`   // read, in requests of their own or in transactions
	Puts     float64 `json:"puts"`
	Deletes  float64 `json:"deletes"`
	Events   float64 `json:"events"` // told to watches
	SentKB   float64 `json:"sent_kb"`
}

// less is what was done since, for each of n.
func (e etcdWork) less(before etcdWork, n float64) etcdWork {
	return etcdWork{
		(e.Requests - before.Requests) / n, (e.Ranges - before.Ranges) / n, (e.Puts - before.Puts) / n,
		(e.Deletes - before.Deletes) / n, (e.Events - before.Events) / n, (e.SentKB - before.SentKB) / n,
	}
}

// countWork begins to count; what it returns says how much it was, for each of n.
func (s *site) countWork(ctx context.Context, n int) (func() (etcdWork, error), error) {
	before, err := s.etcdWork(ctx)
	return func() (etcdWork, error) {
		after, err := s.etcdWork(ctx)
		return after.less(before, float64(n)), err
	}, err
}

// etcdWork asks etcd what it has done.
func (s *site) etcdWork(ctx context.Context) (etcdWork, error) {
	var w etcdWork
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var conn net.Conn
		err := s.ovsNode.do(func() error {
			var err error
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.etcd.Endpoints()[0]+"/metrics", nil)
	if err != nil {
		return w, err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return w, err
	}
	defer answer.Body.Close() //nolint:errcheck // nothing to lose
	found := 0
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		count, err := strconv.ParseFloat(value, 64)
		if err != nil || strings.HasPrefix(name, "#") {
			continue
		}
		found++
		switch name {
		case "etcd_mvcc_range_total":
			w.Ranges = count
		case "etcd_mvcc_put_total":
			w.Puts = count
		case "etcd_mvcc_delete_total":
			w.Deletes = count
		case "etcd_debugging_mvcc_events_total":
			w.Events = count
		case "etcd_network_client_grpc_sent_bytes_total":
			w.SentKB = count / 1024
		default:
			found--
			if strings.HasPrefix(name, "grpc_server_handled_total{") && strings.Contains(name, `grpc_type="unary"`) {
				w.Requests += count
			}
		}
	}
	const wanted = 5
	if found != wanted {
		err = fmt.Errorf("etcd tells %d of %d counts", found, wanted)
	}
	return w, err
}
