package mqtt

// maxRemaining is the largest remaining length that four bytes can encode.
const maxRemaining = 268435455

// Frame cuts the first packet off a buffer. It returns no packet and no error
// while the buffer holds less than one. A packet of more than max bytes,
// counted with its fixed header, is refused as soon as its length is known,
// and wrong types and flags as soon as the first byte is.
func Frame(buf []byte, limit int) (packet, rest []byte, err error) {
	total, err := PacketSize(buf, limit)
	if err != nil || total == 0 || total > len(buf) {
		return nil, buf, err
	}
	return buf[:total:total], buf[total:], nil
}

// PacketSize returns the size of the packet that a buffer begins with, or 0
// while its length is not yet known. A length padded with zeros is accepted:
// MQTT 3.1.1 does not forbid it and modem firmware writes it.
func PacketSize(buf []byte, limit int) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	if err := checkFirstByte(buf[0]); err != nil {
		return 0, err
	}
	length := 0
	for i := 1; i < len(buf); i++ {
		length |= int(buf[i]&0x7F) << (7 * (i - 1))
		if buf[i]&0x80 == 0 {
			total := 1 + i + length
			if total > limit {
				return 0, &Error{Reason: PacketTooLarge, Text: "packet exceeds the maximum packet size"}
			}
			return total, nil
		}
		if i == 4 {
			return 0, malformed("remaining length exceeds four bytes")
		}
	}
	return 0, nil
}

// checkFirstByte refuses reserved types and flags.
func checkFirstByte(first byte) *Error {
	t, flags := Type(first>>4), first&0x0F
	switch {
	case t == 0:
		return violation("packet type 0 is reserved")
	case t == TypePublish:
		if flags&0x06 == 0x06 {
			return malformed("quality of service is 3")
		}
		if flags&0x0E == 0x08 {
			return malformed("duplicate flag without quality of service")
		}
	case t != TypeConnect && flags != t.flags():
		return malformed("fixed header flags of " + t.String())
	}
	return nil
}

// body returns what follows the fixed header of a framed packet.
func body(packet []byte) []byte {
	for i := 1; i < len(packet) && i <= 4; i++ {
		if packet[i]&0x80 == 0 {
			return packet[i+1:]
		}
	}
	return nil
}
