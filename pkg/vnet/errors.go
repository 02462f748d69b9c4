package vnet

import (
	"errors"
	"fmt"
)

// The kinds of error. Everything else wraps one of them with %w; the edges (pkg/cni, cmd)
// turn a kind into a code or an exit status with errors.Is.
var (
	// ErrInvalid: what was asked makes no sense; asking again will not help.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: what was named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists: what was asked conflicts with what stands.
	ErrExists = errors.New("conflicts with what stands")
	// ErrExhausted: no free address, VNI or number is left.
	ErrExhausted = errors.New("exhausted")
	// ErrUnavailable: Open vSwitch or the store does not answer; trying again later may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrCorrupt: a record or the store cannot be read. Nothing was overwritten.
	ErrCorrupt = errors.New("corrupt")
)

// Invalidf returns an ErrInvalid that says what is wrong.
func Invalidf(format string, args ...any) error {
	return &kindError{kind: ErrInvalid, text: fmt.Sprintf(format, args...)}
}

// Existsf returns an ErrExists that says what stands in the way.
func Existsf(format string, args ...any) error {
	return &kindError{kind: ErrExists, text: fmt.Sprintf(format, args...)}
}

// NotFoundf returns an ErrNotFound that says what is missing.
func NotFoundf(format string, args ...any) error {
	return &kindError{kind: ErrNotFound, text: fmt.Sprintf(format, args...)}
}

// OfKind gives err a kind without changing its text; nil stays nil.
func OfKind(kind, err error) error {
	if err == nil {
		return nil
	}
	return &ofKindError{err, kind}
}

type ofKindError struct {
	error
	kind error
}

func (e *ofKindError) Unwrap() []error { return []error{e.error, e.kind} }

// kindError is a text of its own that still answers errors.Is for its kind.
type kindError struct {
	kind error
	text string
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

// WithHint adds to err one line on what the reader can do about it. Error() is unchanged.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{error: err, hint: fmt.Sprintf(format, args...)}
}

// Hint returns the outermost hint in err's chain, or "".
func Hint(err error) string {
	if h, ok := errors.AsType[*hintError](err); ok {
		return h.hint
	}
	return ""
}

type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }
