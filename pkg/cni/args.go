package cni

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Args is what CNI_ARGS may carry: key=value pairs separated by semicolons.
type Args struct {
	types.CommonArgs

	IP  types.UnmarshallableString
	MAC types.UnmarshallableString

	K8S_POD_NAMESPACE          types.UnmarshallableString //nolint:revive,staticcheck // the key's own spelling
	K8S_POD_NAME               types.UnmarshallableString //nolint:revive,staticcheck // the key's own spelling
	K8S_POD_UID                types.UnmarshallableString //nolint:revive,staticcheck // the key's own spelling
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString //nolint:revive,staticcheck // the key's own spelling
}

// errArgs marks an error in the environment, which has a code of its own.
var errArgs = errors.New("CNI_ARGS")

func parseArgs(text string) (Args, error) {
	var a Args
	if err := types.LoadArgs(text, &a); err != nil {
		return a, vnet.OfKind(errArgs, vnet.Invalidf("CNI_ARGS: %v", err))
	}
	return a, nil
}
