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

	"github.com/muster-iot/muster/internal/app"
	"github.com/muster-iot/muster/internal/cli"
)

func main() { os.Exit(run()) }

// run returns the exit code; deferred clean-up happens before the exit. A
// second interrupt lets a server stop without waiting for its devices; a third
// ends the process at once.
func run() int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	hurry := make(chan struct{})
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupts
		stop()
		<-interrupts
		signal.Stop(interrupts)
		close(hurry)
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	options := cli.Options{
		Out: os.Stdout, Err: os.Stderr, LookupEnv: os.LookupEnv,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
		Serve:    serve,
		ResetKey: app.ResetKey,
		Hangup:   hangup,
		Hurry:    hurry,
		Now:      time.Now,
	}
	options.Extra = offlineCommands(options)
	return cli.Execute(ctx, options, os.Args[1:])
}
