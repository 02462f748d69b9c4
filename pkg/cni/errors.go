package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Codes of our own; the others are the CNI specification's.
const (
	CodeExhausted uint = 100 // no free address, VNI or number
	CodeConflict  uint = 101 // what is asked conflicts with what stands
)

// Error turns err into what a runtime gets: the code of its kind, the whole text, and as
// details the hint. nil stays nil. It is called once, at the outer edge.
func Error(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*types.Error); ok { //nolint:errorlint // one that nobody wrapped is complete
		return e
	}
	if e, ok := errors.AsType[*types.Error](err); ok && !errors.Is(err, vnet.ErrInvalid) {
		return types.NewError(e.Code, err.Error(), vnet.Hint(err)) // a foreign plugin's error keeps its code; its details are in the text
	}
	return types.NewError(code(err), err.Error(), vnet.Hint(err))
}

func code(err error) uint {
	switch {
	case errors.Is(err, errUndecodable):
		return types.ErrDecodingFailure
	case errors.Is(err, errArgs):
		return types.ErrInvalidEnvironmentVariables
	case errors.Is(err, errNetNS):
		return types.ErrInvalidNetNS
	case errors.Is(err, vnet.ErrExhausted):
		return CodeExhausted
	case errors.Is(err, vnet.ErrExists):
		return CodeConflict
	case errors.Is(err, vnet.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return types.ErrTryAgainLater
	case errors.Is(err, vnet.ErrInvalid), errors.Is(err, vnet.ErrNotFound):
		return types.ErrInvalidNetworkConfig
	case errors.Is(err, vnet.ErrCorrupt):
		return types.ErrIOFailure
	}
	return types.ErrInternal
}

// errNetNS marks an error of CNI_NETNS.
var errNetNS = errors.New("network namespace")

// NetNSError marks err as one of CNI_NETNS, which has a code of its own.
func NetNSError(err error) error { return vnet.OfKind(errNetNS, err) }
