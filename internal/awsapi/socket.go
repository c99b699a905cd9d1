package awsapi

import "net/netip"

// Socket takes an address with port apart, in the form of the members that
// show connections; nothing of one that is none is told.
func Socket(address string) (ip *string, port *int32) {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, nil
	}
	return new(parsed.Addr().Unmap().String()), new(int32(parsed.Port()))
}
