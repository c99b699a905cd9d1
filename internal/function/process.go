package function

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"
)

const (
	// killPatience is how long the pipes of a killed process are waited for: a
	// child of its own may hold them open.
	killPatience = 500 * time.Millisecond
	// maxComplaint is what of a process's standard error goes into the log, in
	// bytes.
	maxComplaint = 512
	// searchPath is where scripts find their interpreters.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// checkExecutable refuses a path that cannot be run.
func checkExecutable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("find the executable: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is no executable file", path)
	}
	return nil
}

// runProcess starts an executable without arguments, without a shell and
// without the server's own environment, which may hold secrets.
func (s *Set) runProcess(ctx context.Context, d Definition, input []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	output := &bounded{limit: maxOutput, full: cancel}
	complaint := &bounded{limit: maxComplaint, cut: true}
	cmd := exec.CommandContext(ctx, d.Path) //nolint:gosec // the operator's own setting
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + searchPath, "LANG=C.UTF-8", "MUSTER_FUNCTION=" + d.Name}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), output, complaint
	cmd.WaitDelay = killPatience
	ownGroup(cmd)
	err := cmd.Run()
	switch {
	case output.over:
		return nil, fmt.Errorf("%w: it wrote more than %d bytes", ErrFailed, maxOutput)
	case err != nil:
		if errors.Is(err, exec.ErrWaitDelay) {
			// A child of it lives on and holds the pipes.
			_ = cmd.Cancel() // it may have ended by now
		}
		s.log.DebugContext(ctx, "function complained", slog.String("function", d.Name), slog.String("stderr", complaint.buffer.String()))
		return nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return output.buffer.Bytes(), nil
}

// errFull ends a copy into a bounded buffer.
var errFull = errors.New("more bytes than allowed")

// bounded keeps up to limit bytes. The buffer is no embedded one: its ReadFrom
// would be used instead of Write and know no limit.
type bounded struct {
	buffer bytes.Buffer
	limit  int
	// cut forgets what is beyond instead of failing.
	cut bool
	// over is set by a write beyond the limit, after which full is called.
	over bool
	full func()
}

// Write keeps what has room.
func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.buffer.Len()
	if len(p) <= room {
		return b.buffer.Write(p)
	}
	if !b.cut {
		b.over = true
		b.full()
		return 0, errFull
	}
	_, _ = b.buffer.Write(p[:room]) // a buffer takes everything
	return len(p), nil
}
