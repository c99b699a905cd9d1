package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The engine-independent copy of a store is a stream of frames:
//
//	"muster-dump" 0x01, header frame, record frames, event frames, end frame
//	frame  = kind byte, uvarint length, body, CRC-32C of kind and body
//	header = version, sequence, trimmed sequence (8 bytes each)
//	record = version (8 bytes), uvarint key length, key, value
//	event  = sequence (8 bytes), event
//	end    = number of records, number of events (8 bytes each)
//
// All integers of fixed size are big endian.
const dumpMagic = "muster-dump\x01"

const (
	frameHeader = 'h'
	frameRecord = 'r'
	frameEvent  = 'e'
	frameEnd    = 'z'
	// maxFrame bounds what a reader allocates for one frame.
	maxFrame = 64 << 20
)

// DumpHeader are the counters of the copied store.
type DumpHeader struct {
	// Version is the last version given out, Seq the end of the log, Trimmed
	// the newest event that retention removed.
	Version, Seq, Trimmed uint64
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// DumpWriter writes a copy: records, then events, then Close.
type DumpWriter struct {
	w               *bufio.Writer
	table           *crc32.Table
	body            []byte
	records, events uint64
}

// NewDumpWriter writes the header.
func NewDumpWriter(w io.Writer, h DumpHeader) (*DumpWriter, error) {
	d := &DumpWriter{w: bufio.NewWriterSize(w, 64<<10), table: castagnoli()}
	if _, err := d.w.WriteString(dumpMagic); err != nil {
		return nil, fmt.Errorf("write dump: %w", err)
	}
	d.body = binary.BigEndian.AppendUint64(d.body[:0], h.Version)
	d.body = binary.BigEndian.AppendUint64(d.body, h.Seq)
	d.body = binary.BigEndian.AppendUint64(d.body, h.Trimmed)
	return d, d.frame(frameHeader)
}

// Record writes one record.
func (d *DumpWriter) Record(r Record) error {
	d.records++
	d.body = binary.BigEndian.AppendUint64(d.body[:0], r.Version)
	d.body = binary.AppendUvarint(d.body, uint64(len(r.Key)))
	d.body = append(append(d.body, r.Key...), r.Value...)
	return d.frame(frameRecord)
}

// Event writes one encoded event.
func (d *DumpWriter) Event(seq uint64, data []byte) error {
	d.events++
	d.body = append(binary.BigEndian.AppendUint64(d.body[:0], seq), data...)
	return d.frame(frameEvent)
}

// Close writes the end. It does not close the underlying writer.
func (d *DumpWriter) Close() error {
	d.body = binary.BigEndian.AppendUint64(d.body[:0], d.records)
	d.body = binary.BigEndian.AppendUint64(d.body, d.events)
	if err := d.frame(frameEnd); err != nil {
		return err
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	return nil
}

func (d *DumpWriter) frame(kind byte) error {
	var head [1 + binary.MaxVarintLen64]byte
	head[0] = kind
	n := 1 + binary.PutUvarint(head[1:], uint64(len(d.body)))
	sum := crc32.Update(crc32.Update(0, d.table, head[:1]), d.table, d.body)
	_, err1 := d.w.Write(head[:n])
	_, err2 := d.w.Write(d.body)
	_, err3 := d.w.Write(binary.BigEndian.AppendUint32(nil, sum))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	return nil
}

// DumpReader receives what a copy holds.
type DumpReader struct {
	Record func(Record) error
	Event  func(seq uint64, data []byte) error
}

// ReadDump checks a copy and hands over its content in order. The slices are
// the receiver's to keep. An error means that the copy is damaged, cut short
// or not one; what was handed over until then must be discarded.
func ReadDump(ctx context.Context, r io.Reader, to DumpReader) (DumpHeader, error) {
	in := &dumpInput{r: bufio.NewReaderSize(r, 64<<10), table: castagnoli()}
	magic := make([]byte, len(dumpMagic))
	if _, err := io.ReadFull(in.r, magic); err != nil || string(magic) != dumpMagic {
		return DumpHeader{}, errors.New("read dump: it does not begin like one")
	}
	kind, body, err := in.frame()
	if err != nil {
		return DumpHeader{}, err
	}
	if kind != frameHeader || len(body) != 24 {
		return DumpHeader{}, errors.New("read dump: no header")
	}
	h := DumpHeader{
		Version: binary.BigEndian.Uint64(body),
		Seq:     binary.BigEndian.Uint64(body[8:]),
		Trimmed: binary.BigEndian.Uint64(body[16:]),
	}
	if h.Trimmed > h.Seq {
		return DumpHeader{}, fmt.Errorf("read dump: trimmed up to %d of %d events", h.Trimmed, h.Seq)
	}
	in.lastEvent = h.Trimmed
	for {
		if err := ctx.Err(); err != nil {
			return DumpHeader{}, err
		}
		kind, body, err := in.frame()
		if err != nil {
			return DumpHeader{}, err
		}
		if kind == frameEnd {
			return h, in.end(h, body)
		}
		if err := in.pass(kind, body, to); err != nil {
			return DumpHeader{}, err
		}
	}
}

// dumpInput reads frames and counts them.
type dumpInput struct {
	r               *bufio.Reader
	table           *crc32.Table
	records, events uint64
	lastEvent       uint64
}

func (in *dumpInput) frame() (kind byte, body []byte, err error) {
	if kind, err = in.r.ReadByte(); err != nil {
		return 0, nil, fmt.Errorf("read dump: it ends early: %w", err)
	}
	length, err := binary.ReadUvarint(in.r)
	if err != nil {
		return 0, nil, fmt.Errorf("read dump: it ends early: %w", err)
	}
	if length > maxFrame {
		return 0, nil, fmt.Errorf("read dump: a frame of %d bytes is too long", length)
	}
	// The buffer grows with what is there: a length alone costs no memory.
	var buffer bytes.Buffer
	if _, err := io.CopyN(&buffer, in.r, int64(length)+4); err != nil {
		return 0, nil, fmt.Errorf("read dump: it ends early: %w", err)
	}
	body = buffer.Bytes()
	body, tail := body[:length:length], body[length:]
	if crc32.Update(crc32.Update(0, in.table, []byte{kind}), in.table, body) != binary.BigEndian.Uint32(tail) {
		return 0, nil, errors.New("read dump: a frame is damaged")
	}
	return kind, body, nil
}

func (in *dumpInput) pass(kind byte, body []byte, to DumpReader) error {
	if len(body) < 8 {
		return errors.New("read dump: a frame is too short")
	}
	switch kind {
	case frameRecord:
		in.records++
		length, n := binary.Uvarint(body[8:])
		if n <= 0 || length > uint64(len(body)-8-n) {
			return errors.New("read dump: a record's key is cut short")
		}
		at := 8 + n
		key := Key(body[at : at+int(length)])
		return to.Record(Record{Key: key, Version: binary.BigEndian.Uint64(body), Value: body[at+int(length):]})
	case frameEvent:
		in.events++
		seq := binary.BigEndian.Uint64(body)
		if seq != in.lastEvent+1 {
			return fmt.Errorf("read dump: event %d follows event %d", seq, in.lastEvent)
		}
		in.lastEvent = seq
		return to.Event(seq, body[8:])
	default:
		return fmt.Errorf("read dump: unknown frame %q", kind)
	}
}

func (in *dumpInput) end(h DumpHeader, body []byte) error {
	if len(body) != 16 || binary.BigEndian.Uint64(body) != in.records || binary.BigEndian.Uint64(body[8:]) != in.events {
		return errors.New("read dump: counts at its end do not match")
	}
	if want := h.Seq - h.Trimmed; in.events != want {
		return fmt.Errorf("read dump: %d events where the log has %d", in.events, want)
	}
	return nil
}
