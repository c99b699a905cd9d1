// Package awsapi is the front door for AWS clients: it finds the operation that
// a request calls, proves who calls, asks whether they may, decodes, hands the
// wire struct to the adapter that was registered for the operation, and
// renders what comes back. Everything that the catalog knows and nobody
// registered is refused in words.
//
// It knows HTTP, SigV4 and the generated catalog. It knows no domain: adapters
// live in the folders below it, one per service, and register themselves with
// Handle. It starts no goroutines; a Server may be used by many at once after
// the last registration.
//
// A Server must be the handler of its listener, or be called by one that
// leaves paths alone: http.ServeMux redirects paths with empty segments.
package awsapi
