package awsapi

import (
	"errors"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Endpoints know which host names belong to one account alone.
type Endpoints interface {
	// Owner is false for a name that callers of every account may use.
	Owner(name string) (fleet.Account, bool)
}

// errOtherAccount is a caller at the endpoint of an account that is not its own.
var errOtherAccount = errors.New("the endpoint belongs to another account than the caller")

// misdirected refuses a proven caller at another account's endpoint, by TLS
// server name as well as by Host: what the caller may do is done in its own
// account, and it believes to be in another one.
func (s *Server) misdirected(r *http.Request, caller *Caller) *problem {
	if s.options.Endpoints == nil {
		return nil
	}
	names := []string{hostName(r.Host)}
	if r.TLS != nil {
		names = append(names, r.TLS.ServerName)
	}
	for _, name := range names {
		if owner, ok := s.options.Endpoints.Owner(name); ok && owner != caller.Account {
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
