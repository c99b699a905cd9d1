package store

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dumped is what a reader was handed.
type dumped struct {
	Header  DumpHeader
	Records []Record
	Events  map[uint64]string
}

// write renders it.
func (d dumped) write(tb testing.TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := NewDumpWriter(&out, d.Header)
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range d.Records {
		if err := w.Record(r); err != nil {
			tb.Fatal(err)
		}
	}
	for seq := d.Header.Trimmed + 1; seq <= d.Header.Seq; seq++ {
		if err := w.Event(seq, []byte(d.Events[seq])); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// read reverses write.
func read(tb testing.TB, data []byte) (dumped, error) {
	tb.Helper()
	d := dumped{Events: map[uint64]string{}}
	var err error
	d.Header, err = ReadDump(tb.Context(), bytes.NewReader(data), DumpReader{
		Record: func(r Record) error { d.Records = append(d.Records, r); return nil },
		Event:  func(seq uint64, data []byte) error { d.Events[seq] = string(data); return nil },
	})
	return d, err
}

// sample is a small copy with the odd cases in it.
func sample() dumped {
	return dumped{
		Header: DumpHeader{Version: 1 << 40, Seq: 12, Trimmed: 10},
		Records: []Record{
			{Key: K("a", "b"), Value: []byte("value"), Version: 3},
			{Key: "\xff", Value: []byte{}, Version: 1 << 40},
		},
		Events: map[uint64]string{11: `{"v":1}`, 12: ""},
	}
}

func TestDumpRoundTrip(t *testing.T) {
	t.Parallel()
	for _, d := range []dumped{sample(), {Events: map[uint64]string{}}} {
		got, err := read(t, d.write(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("read(write(d)) differs (-want +got):\n%s", diff)
		}
	}
}

// TestDumpNoticesEveryDamage cuts at each byte and flips a bit of each.
func TestDumpNoticesEveryDamage(t *testing.T) {
	t.Parallel()
	whole := sample().write(t)
	for i := range whole {
		if _, err := read(t, whole[:i]); err == nil {
			t.Errorf("cut at byte %d: no error", i)
		}
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		if _, err := read(t, flipped); err == nil {
			t.Errorf("bit of byte %d flipped: no error", i)
		}
	}
}

// TestDumpBelievesNoLength: a length that the input does not keep costs no
// memory. It measures the process, so it is not parallel.
func TestDumpBelievesNoLength(t *testing.T) {
	lying := binary.AppendUvarint(append([]byte(dumpMagic), frameHeader), maxFrame)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := read(t, lying); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	if size := after.TotalAlloc - before.TotalAlloc; size > 4<<20 {
		t.Errorf("%d bytes allocated for a frame of none", size)
	}
}

func FuzzReadDump(f *testing.F) {
	whole := sample().write(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(dumpMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := read(t, data)
		if err != nil {
			return
		}
		if again, err := read(t, d.write(t)); err != nil || !cmp.Equal(d, again) {
			t.Errorf("what was read does not survive writing: %v", err)
		}
	})
}
