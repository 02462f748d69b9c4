package lab

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// Codes of CNI's errors: the specification's, and 101, which is ours.
const (
	CodeVersion     = types.ErrIncompatibleCNIVersion
	CodeArgs        = types.ErrInvalidEnvironmentVariables
	CodeConf        = types.ErrInvalidNetworkConfig
	CodeLater       = types.ErrTryAgainLater
	CodeIO          = types.ErrIOFailure
	CodeNetNS       = types.ErrInvalidNetNS
	CodeUnavailable = types.ErrPluginNotAvailable
	CodeLimited     = types.ErrLimitedConnectivity
	CodeExhausted   = 100
	CodeConflict    = 101
)

// Fails fails the test unless the plugin failed with the code, and said each of the words.
func Fails(tb testing.TB, a Answer, code uint, words ...string) {
	tb.Helper()
	if a.Killed || a.Code() != code {
		tb.Errorf("it ends with code %d (%v), want %d", a.Code(), a.Failed(), code)
		return
	}
	for _, w := range words {
		if !strings.Contains(a.Err.Msg, w) {
			tb.Errorf("the error does not say %q: %s", w, a.Err.Msg)
		}
	}
}
