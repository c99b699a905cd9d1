//go:build unix

package function

import (
	"os/exec"
	"syscall"
)

// ownGroup lets the end of an invocation end the process with all of its
// children.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
