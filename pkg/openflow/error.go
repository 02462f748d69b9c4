package openflow

import (
	"encoding/binary"
	"fmt"
)

// Error is what the switch answers to a message that it refuses (OFPT_ERROR, OpenFlow 1.5.1, 7.5.4).
type Error struct {
	Type         uint16
	Code         uint16
	Experimenter uint32 // whose code it is, if Type is 0xffff; 0x2320 is Nicira
}

// Error gives the name that the specification or OVS (ofp-errors.h) has for the error, if it is one that a flow, a
// bundle or a handshake can meet, and its numbers.
func (e *Error) Error() string {
	if e.Experimenter != 0 {
		return fmt.Sprintf("openflow error: experimenter 0x%x, code %d", e.Experimenter, e.Code)
	}
	if name := errorName(e.Type, e.Code); name != "" {
		return fmt.Sprintf("openflow error %s (type %d, code %d)", name, e.Type, e.Code)
	}
	return fmt.Sprintf("openflow error type %d, code %d", e.Type, e.Code)
}

// decodeError reads the body of an OFPT_ERROR.
func decodeError(b []byte) (*Error, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("error message: %w", errShort)
	}
	e := &Error{Type: binary.BigEndian.Uint16(b), Code: binary.BigEndian.Uint16(b[2:])}
	if e.Type == typeExperimenter && len(b) >= 8 {
		e.Experimenter = binary.BigEndian.Uint32(b[4:])
	}
	return e, nil
}

// Error types: OpenFlow 1.5.1, enum ofp_error_type.
const (
	errorHelloFailed    = 0
	errorBadRequest     = 1
	errorBadAction      = 2
	errorBadInstruction = 3
	errorBadMatch       = 4
	errorFlowModFailed  = 5
	errorGroupModFailed = 6
	errorMeterModFailed = 12
	errorBundleFailed   = 17

	meterExists = 1 // OFPMMFC_METER_EXISTS
)

// errorName is the name of an error in OVS, or "".
func errorName(typ, code uint16) string {
	var prefix string
	var names []string
	switch typ {
	case errorHelloFailed:
		prefix, names = "OFPHFC_", []string{"INCOMPATIBLE", "EPERM"}
	case errorBadRequest:
		prefix, names = "OFPBRC_", []string{
			"BAD_VERSION", "BAD_TYPE", "BAD_STAT", "BAD_EXPERIMENTER", "BAD_EXP_TYPE", "EPERM", "BAD_LEN",
			"BUFFER_EMPTY", "BUFFER_UNKNOWN", "BAD_TABLE_ID", "IS_SLAVE", "BAD_PORT", "BAD_PACKET",
			"MULTIPART_BUFFER_OVERFLOW", "MULTIPART_REQUEST_TIMEOUT", "MULTIPART_REPLY_TIMEOUT",
			"MULTIPART_BAD_SCHED", "PIPELINE_FIELDS_ONLY", "UNKNOWN",
		}
	case errorBadAction:
		prefix, names = "OFPBAC_", []string{
			"BAD_TYPE", "BAD_LEN", "BAD_EXPERIMENTER", "BAD_EXP_TYPE", "BAD_OUT_PORT", "BAD_ARGUMENT", "EPERM",
			"TOO_MANY", "BAD_QUEUE", "BAD_OUT_GROUP", "MATCH_INCONSISTENT", "UNSUPPORTED_ORDER", "BAD_TAG",
			"BAD_SET_TYPE", "BAD_SET_LEN", "BAD_SET_ARGUMENT", "BAD_SET_MASK", "BAD_METER",
		}
	case errorBadInstruction:
		prefix, names = "OFPBIC_", []string{
			"UNKNOWN_INST", "UNSUP_INST", "BAD_TABLE_ID", "UNSUP_METADATA", "UNSUP_METADATA_MASK",
			"BAD_EXPERIMENTER", "BAD_EXP_TYPE", "BAD_LEN", "EPERM", "DUP_INST",
		}
	case errorBadMatch:
		prefix, names = "OFPBMC_", []string{
			"BAD_TYPE", "BAD_LEN", "BAD_TAG", "BAD_DL_ADDR_MASK", "BAD_NW_ADDR_MASK", "BAD_WILDCARDS", "BAD_FIELD",
			"BAD_VALUE", "BAD_MASK", "BAD_PREREQ", "DUP_FIELD", "EPERM",
		}
	case errorFlowModFailed:
		prefix, names = "OFPFMFC_", []string{
			"UNKNOWN", "TABLE_FULL", "BAD_TABLE_ID", "OVERLAP", "EPERM", "BAD_TIMEOUT", "BAD_COMMAND", "BAD_FLAGS",
			"CANT_SYNC", "BAD_PRIORITY", "IS_SYNC",
		}
	case errorGroupModFailed:
		prefix, names = "OFPGMFC_", []string{
			"GROUP_EXISTS", "INVALID_GROUP", "WEIGHT_UNSUPPORTED", "OUT_OF_GROUPS", "OUT_OF_BUCKETS",
			"CHAINING_UNSUPPORTED", "WATCH_UNSUPPORTED", "LOOP", "UNKNOWN_GROUP", "CHAINED_GROUP", "BAD_TYPE",
			"BAD_COMMAND", "BAD_BUCKET", "BAD_WATCH", "EPERM", "UNKNOWN_BUCKET", "BUCKET_EXISTS",
		}
	case errorMeterModFailed:
		prefix, names = "OFPMMFC_", []string{
			"UNKNOWN", "METER_EXISTS", "INVALID_METER", "UNKNOWN_METER", "BAD_COMMAND", "BAD_FLAGS", "BAD_RATE",
			"BAD_BURST", "BAD_BAND", "BAD_BAND_VALUE", "OUT_OF_METERS", "OUT_OF_BANDS",
		}
	case errorBundleFailed:
		prefix, names = "OFPBFC_", []string{
			"UNKNOWN", "EPERM", "BAD_ID", "BUNDLE_EXIST", "BUNDLE_CLOSED", "OUT_OF_BUNDLES", "BAD_TYPE", "BAD_FLAGS",
			"MSG_BAD_LEN", "MSG_BAD_XID", "MSG_UNSUP", "MSG_CONFLICT", "MSG_TOO_MANY", "MSG_FAILED", "TIMEOUT",
			"BUNDLE_IN_PROGRESS", "SCHED_NOT_SUPPORTED", "SCHED_FUTURE", "SCHED_PAST",
		}
	}
	if int(code) >= len(names) {
		return ""
	}
	return prefix + names[code]
}
