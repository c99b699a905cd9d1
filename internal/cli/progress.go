package cli

import (
	"fmt"
	"io"
	"sync"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far the stages of a long command are: a bar for people,
// a line every tenth for logs. It may be called from any goroutine.
type progress struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex
	stage string
	// done is the furthest count of the stage: calls may overtake each other.
	done  int
	tenth int
	bar   *progressbar.ProgressBar
}

// update has the signature that the simulator calls.
func (p *progress) update(stage string, done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stage != p.stage {
		p.finish()
		p.stage, p.done, p.tenth = stage, 0, -1
		if p.terminal {
			p.bar = progressbar.NewOptions(total,
				progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(fmt.Sprintf("%-8s", stage)),
				progressbar.OptionShowCount(), progressbar.OptionSetWidth(32), progressbar.OptionFullWidth(),
				progressbar.OptionSetPredictTime(false))
		}
	}
	if done < p.done {
		return
	}
	p.done = done
	if p.bar != nil {
		_ = p.bar.Set(done)
		return
	}
	if tenth := done * 10 / max(1, total); tenth > p.tenth {
		p.tenth = tenth
		_, _ = fmt.Fprintf(p.out, "%s %d of %d\n", stage, done, total)
	}
}

// end leaves the last bar standing.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.stage = ""
}

// finish ends the line of a bar.
func (p *progress) finish() {
	if p.bar != nil {
		_, _ = fmt.Fprintln(p.out)
		p.bar = nil
	}
}
