package test

import (
	"encoding/json"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// cookieOf is the cookie of a container's forwarding flows.
func cookieOf(c *lab.Container) string {
	id := vnet.Attachment{Container: c.ID, IfName: c.IfName}.ID()
	return fmt.Sprintf("%#x", pipeline.Version<<56|uint64(pipeline.Forward)<<48|uint64(pipeline.EndpointOwner(id)))
}

// decoded turns JSON into what a configuration holds.
func decoded(text string) any {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(fmt.Sprintf("%s: %v", text, err)) // the plugin's result, which was read before
	}
	return v
}
