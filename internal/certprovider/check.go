package certprovider

import (
	"regexp"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// namePattern is the character rule of the published service model.
var namePattern = regexp.MustCompile(`^[\w=,@-]{1,128}$`)

// Operation is the one that a provider signs for; there is no other.
const Operation = "CreateCertificateFromCsr"

// checkName refuses what may not name a provider.
func checkName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return fault.New(fault.InvalidRequest, `certificateProviderName must have 1 to 128 characters and match [\w=,@-]+`)
}

// checkOperations refuses any list but the one that there is.
func checkOperations(operations []string) error {
	if len(operations) == 1 && operations[0] == Operation {
		return nil
	}
	return fault.New(fault.InvalidRequest, "accountDefaultForOperations must be one item, %s", Operation)
}

// functionOf reads the name of a function from its ARN, which has to be of this
// region and the account and without a version.
func functionOf(scope fleet.Scope, arn string) (string, bool) {
	return strings.CutPrefix(arn, "arn:"+fleet.Partition+":lambda:"+scope.Region+":"+string(scope.Account)+":function:")
}

// checkFunction refuses an ARN that leads to no configured function: a provider
// whose function cannot be asked lets nobody in.
func (s *Service) checkFunction(account fleet.Account, arn string) error {
	scope := s.scope(account)
	name, ok := functionOf(scope, arn)
	if !ok {
		return fault.New(fault.InvalidRequest, "lambdaFunctionArn must be arn:%s:lambda:%s:%s:function:NAME with the name of a function that this server is configured with",
			fleet.Partition, scope.Region, scope.Account)
	}
	if !s.o.Functions.Has(name) {
		return fault.New(fault.InvalidRequest, "lambdaFunctionArn names the function %.64q, which this server is not configured with (setting function.target)", name)
	}
	return nil
}
