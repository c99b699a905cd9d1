// Package tag keeps the key-value pairs that operators put on resources. A
// domain that makes a resource hands over its tags with the batch of the
// creation, and takes them away with the batch of the deletion; later changes
// are this package's own commands. Each change has its TagsChanged event in the
// same commit.
//
// The tags of a resource are one record, tags/A/<kind>/<name>, so that their
// number and a repeated creation are decided on one version. A later change
// expects the resource's own record as it was found, without rewriting it: a
// deletion that is faster makes the change look again, and one that is slower
// takes the tags along.
//
// The package knows resources by kind and name only; which kinds there are, and
// how to find one, its composition says. It starts no goroutines.
package tag
