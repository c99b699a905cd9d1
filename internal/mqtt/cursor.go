package mqtt

import (
	"encoding/binary"
	"unicode/utf8"
)

// cursor reads a packet's body. The first failure sticks and every later read
// returns a zero value, so that decoders check once.
type cursor struct {
	rest []byte
	err  *Error
}

// fail keeps the first error.
func (c *cursor) fail(err *Error) {
	if c.err == nil {
		c.err = err
	}
	c.rest = nil
}

// take returns the next n bytes, or nil after a failure.
func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.rest) {
		c.fail(malformed("packet ends too early"))
		return nil
	}
	taken := c.rest[:n:n]
	c.rest = c.rest[n:]
	return taken
}

// u8 reads one byte.
func (c *cursor) u8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// u16 reads two bytes, big-endian.
func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// u32 reads four bytes, big-endian.
func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint reads a variable byte integer.
func (c *cursor) varint() uint32 {
	var value uint32
	for shift := 0; shift < 28; shift += 7 {
		b := c.u8()
		if c.err != nil {
			return 0
		}
		value |= uint32(b&0x7F) << shift
		if b&0x80 == 0 {
			if shift > 0 && b == 0 {
				c.fail(malformed("variable byte integer is not in its shortest form"))
				return 0
			}
			return value
		}
	}
	c.fail(malformed("variable byte integer exceeds four bytes"))
	return 0
}

// packetID reads an identifier, which is never 0.
func (c *cursor) packetID() uint16 {
	id := c.u16()
	if id == 0 && c.err == nil {
		c.fail(malformed("packet identifier is 0"))
	}
	return id
}

// binary reads a length-prefixed byte string without copying it.
func (c *cursor) binary() []byte { return c.take(int(c.u16())) }

// text reads a UTF-8 string without copying it.
func (c *cursor) text() []byte {
	b := c.binary()
	if !validText(b) {
		c.fail(malformed("string is not acceptable UTF-8"))
		return nil
	}
	return b
}

// str reads a UTF-8 string as a copy.
func (c *cursor) str() string { return string(c.text()) }

// done wants the body to be used up and returns the first error.
func (c *cursor) done() error {
	if c.err == nil && len(c.rest) > 0 {
		c.fail(malformed("packet has bytes behind its end"))
	}
	return c.result()
}

// result returns the first error as an interface that is nil when there is none.
func (c *cursor) result() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// validText accepts UTF-8 without U+0000, control characters, surrogates and
// non-characters: what MQTT forbids and what it lets a receiver refuse.
func validText(b []byte) bool {
	for i, c := range b {
		if c < 0x20 || c == 0x7F {
			return false
		}
		if c >= utf8.RuneSelf {
			return validRunes(b[i:])
		}
	}
	return true
}

// validRunes is validText for text beyond ASCII.
func validRunes(b []byte) bool {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && size == 1,
			r < 0x20, r >= 0x7F && r <= 0x9F,
			r >= 0xFDD0 && r <= 0xFDEF, r&0xFFFE == 0xFFFE:
			return false
		}
		b = b[size:]
	}
	return true
}
