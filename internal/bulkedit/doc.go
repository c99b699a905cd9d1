// Package bulkedit changes, deletes or restores many things that one fleet query
// finds: previewed, confirmed, at a bounded pace, and able to be undone.
//
// It owns the tasks: which things are meant, how far the work is, what each thing
// was before. It changes nothing of a thing itself: every change is an ordinary
// command of registry or shadow, which takes the receipt of the change into its
// own commit. A thing with a receipt is done, so that a crash at any moment makes
// none of them twice. It must not know how a query is evaluated, how permissions
// are written, or any wire.
//
// Run has one goroutine for each edit under way, which has a few workers. The
// things of an edit are read from the store page by page and are never all in
// memory. Each step of an edit is an event.BulkEditChanged; what happens to the
// things has events of their own.
package bulkedit
