// Package drift compares what templates promised of things with what the things
// are, shows it, and brings the two together: the thing to the promise, or the
// promise to the thing.
//
// It owns the comparison and nothing that is stored: promises are the registry's,
// committed with a provisioning and gone with the thing, and every repair is one
// commit of the registry. What drifts is found when somebody asks, so that no
// change of a thing costs anything; it must not keep counts. It knows no wire, and
// not how a query is evaluated.
//
// It has no goroutines. It reports with event.PromiseSettled.
package drift
