package store

import (
	"math"
	"testing"
)

func TestCursorKeepsEachPartition(t *testing.T) {
	t.Parallel()
	c := CursorAt(Position{Partition: 3, Seq: 7}, Position{Partition: 0, Seq: 5}, Position{Partition: 9, Seq: 1})
	if got := c.String(); got != "0:5,3:7,9:1" {
		t.Errorf("text is %q", got)
	}
	moved := c.Advance(Position{Partition: 3, Seq: 8}).Advance(Position{Partition: 0, Seq: 2}).Advance(Position{Partition: 4, Seq: 1})
	if got := moved.String(); got != "0:5,3:8,4:1,9:1" {
		t.Errorf("moved, the text is %q", got)
	}
	if got := c.String(); got != "0:5,3:7,9:1" {
		t.Errorf("the original has become %q", got)
	}
	for _, x := range []struct {
		p    Position
		want bool
	}{
		{Position{Partition: 0, Seq: 5}, true},
		{Position{Partition: 0, Seq: 6}, false},
		{Position{Partition: 1, Seq: 0}, true},
		{Position{Partition: 1, Seq: 1}, false},
		{Position{Partition: 3, Seq: 1}, true},
	} {
		if got := c.Covers(x.p); got != x.want {
			t.Errorf("covers %+v: %v", x.p, got)
		}
	}
	if !moved.CoversAll(c) || c.CoversAll(moved) || !c.CoversAll(Cursor{}) {
		t.Error("CoversAll compares wrongly")
	}
}

func TestCursorOrderOfDistantPartitions(t *testing.T) {
	t.Parallel()
	c := CursorAt(Position{Partition: math.MaxUint32, Seq: 1}, Position{Partition: 0, Seq: 1})
	if got := c.String(); got != "0:1,4294967295:1" {
		t.Errorf("text is %q", got)
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{"", "0:1", "0:5,3:7", "3:1,0:2", "0:0", "0", ":", "0:-1", "4294967296:1", "0:18446744073709551615", "0:1,", "a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			return
		}
		again, err := ParseCursor(c.String())
		if err != nil || again.String() != c.String() || !again.CoversAll(c) || !c.CoversAll(again) {
			t.Errorf("%q reads as %q and that as %q, %v", text, c, again, err)
		}
	})
}
