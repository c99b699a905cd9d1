package mqttapi

import "github.com/muster-iot/muster/internal/fault"

// internalText is what a caller learns of a failure that is not its own.
const internalText = "Internal service failure"

// shadowError returns number and text of a rejected shadow request.
func shadowError(err error) (code int, message string) {
	f := fault.From(err)
	switch f.Code {
	case fault.InvalidRequest:
		return 400, f.Message
	case fault.Unauthorized:
		return 401, "Unauthorized"
	case fault.Forbidden:
		return 403, "Forbidden"
	case fault.ResourceNotFound:
		return 404, f.Message
	case fault.Conflict:
		return 409, f.Message
	case fault.RequestEntityTooLarge:
		return 413, f.Message
	case fault.UnsupportedDocumentEncoding:
		return 415, f.Message
	case fault.Throttling:
		return 429, f.Message
	default:
		return 500, internalText
	}
}

// ours reports whether a failure is the server's: the message was not taken
// in, and its sender may send it again.
func ours(err error) bool {
	code, _ := shadowError(err)
	return code == 500
}
