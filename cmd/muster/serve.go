package main

import (
	"context"
	"net"

	"github.com/muster-iot/muster/internal/app"
	"github.com/muster-iot/muster/internal/cli"
)

// serve runs a server until ctx ends, and reads the settings again on SIGHUP.
func serve(ctx context.Context, run cli.ServeRun) error {
	a, err := app.New(ctx, app.Options{Settings: run.Settings, LogTo: run.LogTo, Version: run.Version, Hurry: run.Hurry})
	if err != nil {
		return err
	}
	reloading := make(chan struct{})
	watching, stop := context.WithCancel(ctx)
	go func() {
		defer close(reloading)
		reload(watching, a, run)
	}()
	err = a.Run(ctx, func() {
		run.Ready(cli.Addresses{HTTP: text(a.Addr("http")), MQTT: text(a.Addr("mqtt")), TLS: text(a.Addr("tls"))})
	})
	stop()
	<-reloading
	return err
}

func text(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return addr.String()
}

// reload takes over changed settings until ctx ends; wrong ones change
// nothing.
func reload(ctx context.Context, a *app.App, run cli.ServeRun) {
	for {
		select {
		case <-run.Hangup:
		case <-ctx.Done():
			return
		}
		next, err := run.Reload()
		if err == nil {
			_, err = a.Reload(next) //nolint:contextcheck // what was taken over is recorded although the server stops
		}
		if err != nil {
			a.Complain("settings not reloaded, the ones in use stay", err)
		}
	}
}
