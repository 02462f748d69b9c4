package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func newChainGraph(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "graph TENANT/CHAIN", Short: "Draw a chain",
		Args: exactly("TENANT/CHAIN"), ValidArgsFunction: a.completeChains(),
		Long: `graph draws a chain: who is led, through which functions, with their states and
shares, and to whom. --format dot is for graphviz, mermaid for Markdown; svg
calls graphviz's dot, which must be installed.`,
		Example: "  tenetctl chain graph blue/web-in\n  tenetctl chain graph blue/web-in --format svg >chain.svg",
		RunE: func(cmd *cobra.Command, args []string) error {
			draw := map[string]func(node.ChainState) string{"dot": dotGraph, "mermaid": mermaidGraph, "svg": dotGraph}[format]
			if draw == nil {
				return usagef(cmd, "chain graph: format %q: must be dot, mermaid or svg", format)
			}
			st, err := a.chainState(cmd, args[0])
			if err != nil {
				return err
			}
			text := draw(st)
			if format == "svg" {
				return a.svg(cmd, text)
			}
			_, err = io.WriteString(a.out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "dot", "`dot`, mermaid or svg")
	complete(cmd, "format", "dot", "mermaid", "svg")
	return cmd
}

// svg has graphviz draw.
func (a *app) svg(cmd *cobra.Command, text string) error {
	path, err := exec.LookPath("dot")
	if err != nil {
		return vnet.WithHint(fmt.Errorf("chain graph: graphviz is not installed: %w", err), "install it, or draw with --format mermaid")
	}
	dot := exec.CommandContext(cmd.Context(), path, "-Tsvg")
	dot.Stdin, dot.Stdout, dot.Stderr = strings.NewReader(text), a.out, a.err
	if err := dot.Run(); err != nil {
		return fmt.Errorf("chain graph: %s: %w", path, err)
	}
	return nil
}

// shapes are what a graph is made of, whatever its language.
type shapes struct {
	node  func(id, label string, dead bool) string
	edge  func(from, to, label string) string
	group func(id, label string, inner []string) []string
}

// draw lists a chain's nodes and edges: classifiers, groups with their instances, receivers.
func draw(st node.ChainState, s shapes) []string {
	var lines []string
	for i, k := range st.Classifiers {
		lines = append(lines, s.node(fmt.Sprintf("from%d", i), k.From.String(), false), s.node(fmt.Sprintf("to%d", i), k.To.String(), false))
	}
	ids := map[vnet.Hop]string{}
	for h, hop := range st.Hops {
		var inner []string
		for _, f := range hop.Instances {
			id, label := fmt.Sprintf("f%d", f.Number), fmt.Sprintf("%s (%s)", f.Container, f.State)
			if f.Node != "" {
				id, label = fmt.Sprintf("f%d_%d", f.Number, len(ids)), fmt.Sprintf("%s on %s (%s)", f.Container, f.Node, f.State)
			}
			ids[f.Hop()] = id
			inner = append(inner, s.node(id, label, f.State != "serves"))
		}
		if len(inner) == 0 {
			inner = append(inner, s.node(fmt.Sprintf("none%d", h), "no function", true))
		}
		lines = append(lines, s.group(fmt.Sprintf("hop%d", h+1), fmt.Sprintf("%d %s: %s, %s", h+1, hop.Name, hop.Mode, hop.OnFailure), inner)...)
	}
	if st.Blocked != "" {
		lines = append(lines, s.node("blocked", fmt.Sprintf("blocked: nobody in %s lives", st.Blocked), true))
		for i := range st.Classifiers {
			lines = append(lines, s.edge(fmt.Sprintf("from%d", i), "blocked", "new connections"))
		}
		return lines
	}
	share := map[[2]string]float64{}
	var order [][2]string
	add := func(from, to string, part float64) {
		e := [2]string{from, to}
		if _, has := share[e]; !has {
			order = append(order, e)
		}
		share[e] += part
	}
	last := 0
	for _, p := range st.Paths {
		if p.Share > 0 {
			last = max(last, p.Leg)
		}
	}
	for _, p := range st.Paths {
		if p.Share == 0 {
			continue
		}
		var way []string
		for _, h := range p.Hops {
			way = append(way, ids[h])
		}
		for i := range st.Classifiers {
			from, to := fmt.Sprintf("from%d", i), fmt.Sprintf("to%d", i)
			stops := way
			if p.Leg == 1 {
				stops = append([]string{from}, stops...)
			}
			if p.Leg == last {
				stops = append(slices.Clip(stops), to)
			}
			for j := 1; j < len(stops); j++ {
				if i > 0 && !strings.HasPrefix(stops[j-1], "from") && !strings.HasPrefix(stops[j], "to") {
					continue // the way between functions is one for all classifiers
				}
				add(stops[j-1], stops[j], p.Share)
			}
		}
	}
	for _, e := range order {
		lines = append(lines, s.edge(e[0], e[1], fmt.Sprintf("%.0f %%", 100*share[e])))
	}
	return lines
}

func quoted(label string) string { return strings.ReplaceAll(label, `"`, `'`) }

// dotted is quoted where a backslash begins an escape sequence.
func dotted(label string) string { return strings.ReplaceAll(quoted(label), `\`, `\\`) }

func dotGraph(st node.ChainState) string {
	lines := draw(st, shapes{
		node: func(id, label string, dead bool) string {
			style := ""
			if dead {
				style = ", style=dashed"
			}
			return fmt.Sprintf("%s [label=\"%s\"%s];", id, dotted(label), style)
		},
		edge: func(from, to, label string) string {
			return fmt.Sprintf("%s -> %s [label=\"%s\"];", from, to, dotted(label))
		},
		group: func(id, label string, inner []string) []string {
			lines := []string{fmt.Sprintf("subgraph cluster_%s {", id), fmt.Sprintf("  label=\"%s\";", dotted(label))}
			for _, line := range inner {
				lines = append(lines, "  "+line)
			}
			return append(lines, "}")
		},
	})
	head := fmt.Sprintf("digraph chain {\n  label=\"chain %s\";\n  rankdir=LR;\n  node [shape=box];\n", dotted(st.Ref().String()))
	return head + "  " + strings.Join(lines, "\n  ") + "\n}\n"
}

func mermaidGraph(st node.ChainState) string {
	lines := draw(st, shapes{
		node: func(id, label string, dead bool) string {
			if dead {
				label = "✗ " + label
			}
			return fmt.Sprintf("%s[\"%s\"]", id, quoted(label))
		},
		edge: func(from, to, label string) string { return fmt.Sprintf("%s -->|%s| %s", from, quoted(label), to) },
		group: func(id, label string, inner []string) []string {
			lines := []string{fmt.Sprintf("subgraph %s[\"%s\"]", id, quoted(label))}
			for _, line := range inner {
				lines = append(lines, "  "+line)
			}
			return append(lines, "end")
		},
	})
	return "flowchart LR\n  " + strings.Join(lines, "\n  ") + "\n"
}
