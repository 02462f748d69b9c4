package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tenet-cni/tenet/pkg/cluster"
)

// serveHTTP tells Prometheus and those who ask whether the node is well. Whoever reaches the address may ask.
func (d *daemon) serveHTTP(reports *reports) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		s := &http.Server{
			Handler: handler(reports), BaseContext: func(net.Listener) context.Context { return ctx },
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		}
		defer context.AfterFunc(ctx, func() { _ = s.Close() })()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

func handler(reports *reports) http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	ask := func(path string, tell func(http.ResponseWriter, *http.Request, cluster.Report)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, q *http.Request) {
			r, err := reports.latest(q.Context())
			if err != nil { // who asked has gone
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			tell(w, q, r)
		})
	}
	ask("/metrics", func(w http.ResponseWriter, q *http.Request, r cluster.Report) {
		node := prometheus.NewRegistry()
		node.MustRegister(exposition(r))
		promhttp.HandlerFor(prometheus.Gatherers{process, node}, promhttp.HandlerOpts{}).ServeHTTP(w, q)
	})
	ask("/healthz", func(w http.ResponseWriter, _ *http.Request, r cluster.Report) { healthz(w, r) })
	return mux
}

// healthz says "ok", or in a line each what is wrong. A node that is cut off from its cluster goes on, and is well.
func healthz(w http.ResponseWriter, r cluster.Report) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(r.Problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		for _, p := range r.Problems {
			fmt.Fprintf(w, "%s: %s\n", p.What, p.Error)
		}
	} else {
		fmt.Fprintln(w, "ok")
	}
	if r.Cluster != nil && r.Cluster.Cut() != "" {
		fmt.Fprintln(w, r.Cluster.Cut())
	}
}
