package etcd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A refusal is an answer of etcd's that will be the same if it is asked again.
type refusal struct {
	err  error
	kind error
	hint string
}

// refusals are etcd's own errors; those of TLS have no values (tlsRefused). In a hint USER and PREFIX stand for them.
var refusals = []refusal{
	{rpctypes.ErrAuthFailed, vnet.ErrInvalid, "check username and passwordFile of the etcd configuration; user USER is not known, or has another password"},
	{rpctypes.ErrUserEmpty, vnet.ErrInvalid, "this etcd wants a user: name username and passwordFile, or a certificate whose common name is a user"},
	{rpctypes.ErrPermissionDenied, vnet.ErrInvalid, "user USER needs a role for the prefix: etcdctl role grant-permission ROLE --prefix=true readwrite PREFIX"},
	{rpctypes.ErrTooManyOps, vnet.ErrExhausted, "make the change in smaller parts, or start etcd with a larger --max-txn-ops (128 if not told)"},
	{rpctypes.ErrRequestTooLarge, vnet.ErrExhausted, "make the change in smaller parts, or start etcd with larger --max-request-bytes"},
	{rpctypes.ErrNoSpace, vnet.ErrUnavailable, "etcd is full: compact and defragment it, or start it with larger --quota-backend-bytes, and then etcdctl alarm disarm"},
}

// asRefusal returns the refusal that err is, nil if asking again may help.
func asRefusal(err error) *refusal {
	if i := slices.IndexFunc(refusals, func(r refusal) bool { return errors.Is(err, r.err) }); i >= 0 {
		return &refusals[i]
	}
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return nil
	case tlsRefused(s.Message()):
		return &refusal{err, vnet.ErrInvalid, "check caFile, certFile and keyFile of the etcd configuration, and whether the endpoints speak TLS"}
	case s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max"): // grpc's own, unsent
		return &refusal{err, vnet.ErrExhausted, "make the change in smaller parts"}
	}
	return nil
}

// tlsRefused tells that one side does not take the other's certificate, or does not speak TLS. gRPC passes on the
// text of crypto/tls and crypto/x509, and no value.
func tlsRefused(text string) bool {
	return strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ")
}

// unsent tells that a request has not reached etcd: nobody took the connection, or a member knew no leader to pass it
// on to (clientv3.WithRequireLeader).
func unsent(err error) bool {
	return errors.Is(err, rpctypes.ErrNoLeader) || strings.Contains(status.Convert(err).Message(), "Error while dialing")
}

// sizeError says of a change how large it is.
type sizeError struct {
	error
	changes int
}

func (t sizeError) Error() string {
	return fmt.Sprintf("a change of %d records is more than etcd takes at once", t.changes)
}

func (t sizeError) Unwrap() error { return t.error }

// Unsure reports whether a change by Client that ended with this error may have been made nonetheless, or may yet be: its
// answer was lost.
func Unsure(err error) bool { return err != nil && asRefusal(err) == nil && !unsent(err) }

// Refused reports whether an error of this package's is an answer of etcd's: it was not silent.
func Refused(err error) bool {
	_, ok := errors.AsType[answer](err)
	return ok
}

// answer marks an error that is one.
type answer struct{ error }

func (a answer) Unwrap() error { return a.error }

// passing tells that a revision is not there any more (or, after a restore, not yet): a new snapshot may be.
func passing(err error) bool {
	return errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrFutureRev)
}

// Error gives an error of Client's the kind and the hint that the store's own have; nil stays nil.
func (s *Store) Error(err error) error {
	if err == nil {
		return nil
	}
	return s.explain(err)
}

// explain gives an error of the client's the place, a kind and a hint.
func (s *Store) explain(err error) error {
	kind, hint := vnet.ErrUnavailable, "see whether its members run and have a leader: etcdctl endpoint health --cluster"
	if said := err.Error(); strings.Contains(said, "handshake") || strings.Contains(said, "server preface") { // cut off, not refused
		hint = "see whether the endpoints speak TLS: https, or http?"
	}
	r := asRefusal(err)
	if r != nil {
		kind, hint = r.kind, strings.NewReplacer("USER", s.userText(), "PREFIX", s.prefix).Replace(r.hint)
	}
	err = fmt.Errorf("%s: %w: %w", s.name, kind, plain(err))
	if r != nil {
		err = answer{err}
	}
	return vnet.WithHint(err, "%s", hint)
}

// userText names the user, who may be the certificate's.
func (s *Store) userText() string {
	if s.user == "" {
		return "of the certificate's common name"
	}
	return strconv.Quote(s.user)
}

// plain takes gRPC's "rpc error: code = ..." off an error's text.
func plain(err error) error {
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok { // not what wraps one: that says more
		return errors.New(s.GRPCStatus().Message())
	}
	return err
}
