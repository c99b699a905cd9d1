// Package signin lets people sign in to the console: by the password of a user,
// or by an OpenID provider that vouches for them. Whoever is let in gets the
// credentials of a short session, with which the browser signs what it asks for;
// there is no cookie and no state of sessions here.
//
// It owns the bound on failed sign-ins, the flows with the provider that are
// under way, and the codes by which a page fetches the credentials of one. All of
// that is in memory, bounded, and gone after a restart: people sign in again.
//
// It must not know the console, HTTP handlers or where users are kept. It starts
// no goroutines and makes no events; its callers record sign-ins.
package signin
