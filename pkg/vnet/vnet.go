// Package vnet is tenet's vocabulary: tenants, their networks and subnets, and the endpoints
// in them, each with its validation. It is pure: no I/O, no clock, the standard library only.
//
// Every other package speaks in these nouns. Errors of the whole project carry one of the
// kinds declared in errors.go.
package vnet
