package index

import "encoding/binary"

// SealSnapshot sets the checksums of a snapshot's sections right.
func SealSnapshot(data []byte) {
	for at := len(snapshotMagic); at+sectionHead <= len(data); {
		n := binary.LittleEndian.Uint64(data[at+1:])
		body := at + sectionHead
		if n > uint64(len(data)-body) {
			return
		}
		binary.LittleEndian.PutUint32(data[at+9:], checksum(data[at], data[body:body+int(n)]))
		at = body + int(n)
	}
}
