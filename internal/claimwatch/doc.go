// Package claimwatch watches what claims are used for. It follows the event log:
// for each claim certificate it keeps from which networks devices have asked, how
// many joined and how many were refused, and raises a finding when a claim is used in
// a way that its owner did not mean: from a network that it was never used from
// before, for another template, at another time, beyond a quota.
//
// It owns the records of claims and their findings. It refuses nobody: bindings of
// templates do, and it must not know how. It starts no goroutines, and emits
// event.ClaimMisused in the commit that keeps the finding.
package claimwatch
