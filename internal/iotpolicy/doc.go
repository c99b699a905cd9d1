// Package iotpolicy is the language of device policies: documents in the IAM
// grammar, the variables of a device connection, and the decision that a set
// of them makes about one action on one resource. Policies of other kinds, such
// as those of operators, share all of it but the variables: they are a Dialect.
//
// Parse checks a document once, when it is stored. Compile resolves variables
// and conditions once per connection, because everything they can refer to is
// fixed for its life, and leaves patterns only. Set.Decide then runs on every
// packet without allocating.
//
// One rule holds throughout: a variable without a value never widens access.
// Text that contains one equals nothing; where that would make an Allow
// statement match (NotResource, negated conditions) the statement is dropped.
//
// Set.Explain says why, after the fact: which statements matched, which came
// nearest and where they part from the request.
//
// The package is pure: no clock, no input or output, no goroutines. It knows
// neither the registry nor MQTT; its callers say who connects and what for.
package iotpolicy
