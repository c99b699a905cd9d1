// Command muster is the server, the operator's command line and the
// simulator. It turns signals into the end of a context and hands everything
// else to internal/cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/muster-iot/muster/internal/cli"
)

func main() { os.Exit(run()) }

// run returns the exit code; deferred clean-up happens before the exit. A
// second interrupt ends the process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	options := cli.Options{
		Out: os.Stdout, Err: os.Stderr, LookupEnv: os.LookupEnv,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
		Serve:    serve,
		Hangup:   hangup,
		Now:      time.Now,
	}
	options.Extra = offlineCommands(options)
	return cli.Execute(ctx, options, os.Args[1:])
}
