// Package certprovider lets an installation's own authority sign the certificate
// requests of devices: a certificate provider names a function that is given the
// request and answers with a certificate. An account has at most one. While it has
// one, the server's own authority signs no request that comes over MQTT; whatever
// goes wrong with the function refuses the device.
//
// The package owns the records of providers, what a function is told, and what it
// may answer. It must not know what runs a function (package function, behind
// Functions), nor how a certificate is kept (package registry). It implements
// provisioning.Signer. It has no goroutines. It emits
// event.CertificateProviderChanged.
package certprovider
