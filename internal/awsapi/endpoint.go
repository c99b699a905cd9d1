package awsapi

import (
	"errors"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Directory knows accounts, and which host names belong to one of them alone.
type Directory interface {
	// Closed accounts are refused to all their callers.
	Closed(of fleet.Account) bool
	// Owner is false for a name that callers of every account may use.
	Owner(name string) (fleet.Account, bool)
}

// errClosed is a caller of an account that was closed.
var errClosed = errors.New("the account of the caller is closed")

// errOtherAccount is a caller at the endpoint of an account that is not its own.
var errOtherAccount = errors.New("the endpoint belongs to another account than the caller")

// misdirected refuses a proven caller, however it was proven, of a closed account,
// and one at another account's endpoint, by TLS server name as well as by Host:
// what the caller may do is done in its own account, and it believes to be in
// another one.
func (s *Server) misdirected(r *http.Request, caller *Caller) *problem {
	directory := s.options.Directory
	if directory == nil {
		return nil
	}
	if directory.Closed(caller.Account) {
		return &problem{
			name: "UnrecognizedClientException", status: http.StatusForbidden, cause: errClosed,
			message: "The security token included in the request is invalid",
		}
	}
	names := []string{hostName(r.Host)}
	if r.TLS != nil {
		names = append(names, r.TLS.ServerName)
	}
	for _, name := range names {
		if owner, ok := directory.Owner(name); ok && owner != caller.Account {
			return &problem{
				name: "ForbiddenException", status: http.StatusForbidden, cause: errOtherAccount,
				message: "The credentials are of another account than the endpoint that was called",
			}
		}
	}
	return nil
}

// misdirectedFault is misdirected for front ends beside this one.
func (s *Server) misdirectedFault(r *http.Request, caller *Caller) error {
	if p := s.misdirected(r, caller); p != nil {
		return fault.Wrap(fault.Unauthorized, p.cause, "%s", p.message)
	}
	return nil
}
