package mqtt

import (
	"encoding/binary"
	"errors"
)

// Errors of encoding: values that the wire has no room for.
var (
	ErrStringTooLong = errors.New("mqtt: string exceeds 65535 bytes")
	ErrPacketTooLong = errors.New("mqtt: packet exceeds 268435455 bytes")
)

// encoder appends one packet to a buffer. The first failure sticks.
type encoder struct {
	b     []byte
	start int
	err   error
}

// headerRoom is the longest fixed header; finish closes the gap that a shorter
// one leaves.
const headerRoom = 5

// begin reserves the fixed header at the end of dst.
func begin(dst []byte, t Type, flags byte) encoder {
	e := encoder{b: dst, start: len(dst)}
	e.b = append(e.b, byte(t)<<4|flags, 0, 0, 0, 0)
	return e
}

// finish writes the remaining length and returns the buffer; on failure it is
// the buffer as it was given to begin.
func (e *encoder) finish() ([]byte, error) {
	length := len(e.b) - e.start - headerRoom
	if length > maxRemaining && e.err == nil {
		e.err = ErrPacketTooLong
	}
	if e.err != nil {
		return e.b[:e.start], e.err
	}
	size := len(appendVarint(e.b[e.start+1:e.start+1], uint32(length)))
	copy(e.b[e.start+1+size:], e.b[e.start+headerRoom:])
	return e.b[:len(e.b)-(headerRoom-1-size)], nil
}

// u8 appends one byte.
func (e *encoder) u8(v byte) { e.b = append(e.b, v) }

// u16 appends two bytes, big-endian.
func (e *encoder) u16(v uint16) { e.b = binary.BigEndian.AppendUint16(e.b, v) }

// u32 appends four bytes, big-endian.
func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }

// str appends a length-prefixed string.
func (e *encoder) str(s string) {
	if len(s) > 65535 {
		e.err = ErrStringTooLong
		return
	}
	e.u16(uint16(len(s)))
	e.b = append(e.b, s...)
}

// binary appends length-prefixed bytes.
func (e *encoder) binary(s []byte) {
	if len(s) > 65535 {
		e.err = ErrStringTooLong
		return
	}
	e.u16(uint16(len(s)))
	e.b = append(e.b, s...)
}

// appendVarint appends a variable byte integer of at most four bytes.
func appendVarint(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
