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

// MaxWaiting bounds the decisions that wait for their commit.
const MaxWaiting = maxWaiting

// Waiting is how many decisions wait or are being committed.
func (x *Index) Waiting() int { return x.outbox.size() }

// Attend makes the index wait for the test, as for Run, until the returned function
// is called.
func (x *Index) Attend() (leave func()) {
	x.outbox.update(func() { x.outbox.runners++ })
	return func() { x.outbox.update(func() { x.outbox.runners-- }) }
}

// FillStep fills large groups a little further.
func (x *Index) FillStep() bool { return x.fillStep() }
