package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"sigs.k8s.io/yaml"
)

// print writes a value as -o asks: as JSON or YAML, or for people.
func (a *app) print(value any, forPeople func(io.Writer)) error {
	switch a.output {
	case "json":
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	}
	forPeople(a.out)
	return nil
}

// columns writes rows under their headings, in columns with two spaces between.
func columns(w io.Writer, headings []any, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(w)
	if len(headings) > 0 {
		t.AppendHeader(headings)
	}
	var numbers []table.ColumnConfig // of which some may be unknown, "-"
	for _, row := range rows {
		t.AppendRow(row)
		for i, cell := range row {
			if _, is := cell.(uint64); is {
				numbers = append(numbers, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
			}
		}
	}
	t.SetColumnConfigs(numbers)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	t.Render()
}

// list joins values, or says that there are none.
func list[T any](values []T) string {
	if len(values) == 0 {
		return "-"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ",")
}

// plural spells a count: "1 flow", "2 flows".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
