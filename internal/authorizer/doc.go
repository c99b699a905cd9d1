// Package authorizer lets an installation's own code decide who a device is: a
// custom authorizer names a function that looks at a token, a user name and
// password or a request, and answers with a principal and the policies of the
// connection. The package owns the records of authorizers and which one is the
// default, the check of a token's signature, what a function is told, and what
// it may answer.
//
// It must not know what runs a function (package function, behind Functions),
// what a policy means, nor packets and transports: the front ends hand it
// credentials that they have found, see Credentials. It has no goroutines. It
// emits event.AuthorizerChanged.
package authorizer
