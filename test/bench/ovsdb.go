package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// A database is a warm connection to ovsdb-server with as little as can be between (RFC 7047): it is half of the floor,
// so it owes nothing to pkg/ovs. One call at a time.
type database struct {
	conn   net.Conn
	read   *json.Decoder
	write  *json.Encoder
	calls  int
	root   any // the uuid of the row of table Open_vSwitch
	bridge any // of our bridge
}

// An op is one operation of a transaction, a row's columns are by name.
type (
	op  map[string]any
	row map[string]any
)

// answer is what an operation answered.
type answer struct {
	Error   string `json:"error"`
	Details string `json:"details"`
	UUID    any    `json:"uuid"`
	Count   int    `json:"count"`
	Rows    []row  `json:"rows"`
}

const databasePatience = 2 * time.Minute

func dialDatabase(path, bridge string) (*database, error) {
	conn, err := net.Dial("unix", path) //nolint:noctx // a Unix socket connects or refuses at once
	if err != nil {
		return nil, err
	}
	d := &database{conn: conn, read: json.NewDecoder(conn), write: json.NewEncoder(conn)}
	found, err := d.transact(
		op{"op": "select", "table": "Open_vSwitch", "where": []any{}, "columns": []string{"_uuid"}},
		op{"op": "select", "table": "Bridge", "where": where("name", bridge), "columns": []string{"_uuid"}})
	if err == nil && (len(found[0].Rows) != 1 || len(found[1].Rows) != 1) {
		err = fmt.Errorf("no bridge %s", bridge)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	d.root, d.bridge = found[0].Rows[0]["_uuid"], found[1].Rows[0]["_uuid"]
	return d, nil
}

func (d *database) transact(ops ...op) ([]answer, error) {
	params := []any{"Open_vSwitch"}
	for _, o := range ops {
		params = append(params, o)
	}
	d.calls++
	if err := d.conn.SetDeadline(time.Now().Add(databasePatience)); err != nil {
		return nil, err
	}
	if err := d.write.Encode(map[string]any{"method": "transact", "params": params, "id": d.calls}); err != nil {
		return nil, err
	}
	for {
		var m struct {
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			ID     any             `json:"id"`
			Result []answer        `json:"result"`
			Error  any             `json:"error"`
		}
		if err := d.read.Decode(&m); err != nil {
			return nil, err
		}
		if m.Method == "echo" {
			if err := d.write.Encode(map[string]any{"result": m.Params, "error": nil, "id": m.ID}); err != nil {
				return nil, err
			}
			continue
		}
		if m.Error != nil {
			return nil, fmt.Errorf("ovsdb-server: %v", m.Error)
		}
		for _, a := range m.Result {
			if a.Error != "" {
				return nil, fmt.Errorf("ovsdb-server: %s: %s", a.Error, a.Details)
			}
		}
		return m.Result, nil
	}
}

// A port is a row to be: a link of that name, with the number and the external_ids.
type port struct {
	Name   string
	OFPort int // to ask for; 0: none
	IDs    map[string]string
}

// insert puts ports into the bridge in one transaction, and returns when that is committed.
func (d *database) insert(ports ...port) error {
	var ops []op
	var refs []any
	for i, p := range ports {
		ids := []any{}
		for k, v := range p.IDs {
			ids = append(ids, []string{k, v})
		}
		link := row{"name": p.Name, "external_ids": []any{"map", ids}}
		if p.OFPort != 0 {
			link["ofport_request"] = p.OFPort
		}
		iface, ref := fmt.Sprintf("i%d", i), []any{"named-uuid", fmt.Sprintf("p%d", i)}
		ops = append(
			ops,
			op{"op": "insert", "table": "Interface", "uuid-name": iface, "row": link},
			op{"op": "insert", "table": "Port", "uuid-name": ref[1], "row": row{
				"name": p.Name, "interfaces": []any{"named-uuid", iface}, "external_ids": []any{"map", ids},
			}})
		refs = append(refs, ref)
	}
	_, err := d.transact(append(ops, d.mutatePorts("insert", refs))...)
	return err
}

// awaitUp waits for the port of that name to have its number and to be up.
func (d *database) awaitUp(name string) error {
	wait := func(column string, until string, value any) op {
		return op{
			"op": "wait", "table": "Interface", "where": where("name", name), "timeout": databasePatience.Milliseconds(),
			"columns": []string{column}, "until": until, "rows": []row{{column: value}},
		}
	}
	_, err := d.transact(wait("ofport", "!=", []any{"set", []any{}}), wait("link_state", "==", "up"))
	return err
}

// remove takes the port of that name out of the bridge.
func (d *database) remove(name string) error {
	found, err := d.transact(op{"op": "select", "table": "Port", "where": where("name", name), "columns": []string{"_uuid"}})
	if err != nil || len(found[0].Rows) == 0 {
		return err
	}
	_, err = d.transact(d.mutatePorts("delete", []any{found[0].Rows[0]["_uuid"]}))
	return err
}

// settle waits until ovs-vswitchd has nothing left to do: the second time for what came while it did the first.
func (d *database) settle() error {
	for range 2 {
		root := []any{[]any{"_uuid", "==", d.root}}
		next, err := d.transact(
			op{"op": "mutate", "table": "Open_vSwitch", "where": root, "mutations": []any{[]any{"next_cfg", "+=", 1}}},
			op{"op": "select", "table": "Open_vSwitch", "where": root, "columns": []string{"next_cfg"}})
		if err != nil {
			return err
		}
		if _, err = d.transact(op{
			"op": "wait", "table": "Open_vSwitch", "where": []any{[]any{"cur_cfg", ">=", next[1].Rows[0]["next_cfg"]}},
			"timeout": databasePatience.Milliseconds(), "columns": []string{"_uuid"}, "until": "==", "rows": []row{{"_uuid": d.root}},
		}); err != nil {
			return err
		}
	}
	return nil
}

func (d *database) mutatePorts(mutator string, refs []any) op {
	return op{"op": "mutate", "table": "Bridge", "where": []any{[]any{"_uuid", "==", d.bridge}}, "mutations": []any{
		[]any{"ports", mutator, []any{"set", refs}},
	}}
}

func where(column string, value any) []any { return []any{[]any{column, "==", value}} }
