// Package inlet bounds what peers may take before they have proven who they
// are: how many connections are open at once, so that the store never runs out
// of files, and how many of them do costly work at once, so that one source
// cannot shut out all others. It knows no protocol and no identity, and starts
// no goroutines.
package inlet
