// Package connectivity decides what state each device is in, as opposed to
// whether its client is connected at this moment: a connection that comes back
// within its wait state was no outage. It follows the event log, takes in what
// devices declare about themselves or gateways about the things behind them,
// and keeps for each thing a record with its state, timers and figures. It
// knows no packets and no topics; what it must know of live connections, of the
// registry and of the past it asks through the small interfaces of Options.
//
// Every settled change commits record, timer and event.ConnectivityStateChanged
// together, counted by a state version, so that a restart neither loses nor
// doubles one. Decisions are functions of record, input, settings and time; see
// decide.go, whose table is that of docs/connectivity.md.
//
// Goroutines: none of its own. Apply and Rebuild run in the log's consumer, Run
// blocks until its context ends; one lock lets one of them work at a time, so
// that the records have one writer. Declare never blocks: its line is bounded.
//
// Events: it consumes those of connections, things, attachments, certificates,
// groups and its own state changes (for what lies behind gateways), and appends
// ConnectivityStateChanged, ConnectivitySettingsChanged and LatencyMeasured.
package connectivity
