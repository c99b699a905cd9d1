package sdk

import (
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// answerCase is one call of the control plane through the SDK and what must
// come back.
type answerCase struct {
	// op is the operation, for example CreateThing.
	op string
	// want is the exception that the model documents, empty for success.
	want string
	// rule says which of several reasons for the same answer this is.
	rule string
	// says is a part of the message, so that the right rule refuses; empty for
	// success.
	says string
	// do makes what it needs under names of its own, calls once more than that,
	// and returns the error of that call. For success it checks the answer with
	// o.t.
	do func(o *operator) error
}

// answerCases is every case, area by area; an area has a file of its own.
func answerCases() []answerCase {
	return slices.Concat(endpointAnswers(), thingAnswers(), groupAnswers(), policyAnswers(), certificateAnswers(), indexAnswers(), aggregateAnswers(),
		templateAnswers(), registrationTaskAnswers(), certificateProviderAnswers())
}

// matrixDomains are the domains whose operations are all held to the model.
func matrixDomains() []string {
	return []string{"endpoints", "registry", "groups", "billing", "policies", "certificates", "index"}
}

// alsoInMatrix are operations of other domains that are held to it.
func alsoInMatrix() []string {
	return append(append(templateOperations(), registrationTaskOperations()...), "TagResource", "UntagResource", "ListTagsForResource", "UpdateEventConfigurations", "DescribeEventConfigurations")
}

// notFromOutside are exceptions that the models list for most operations and
// that no request brings about by what it asks; where each is shown instead.
func notFromOutside() map[string]string {
	return map[string]string{
		"InternalFailureException":    "a mistake of the server; internal/awsapi tests its shape",
		"InternalException":           "a mistake of the server; internal/awsapi tests its shape",
		"ServiceUnavailableException": "a full disk, a server that stops or a database that is away; internal/registry's TestStorageFaults and TestStorageOutOfReach",
		"ThrottlingException":         "many concurrent changes of one resource; internal/registry's TestStorageFaults",
		"UnauthorizedException":       "callers that are not proven get the errors of the signature; TestWrongKeyIsRefused",
	}
}

// notReached are documented exceptions of single operations that cannot come
// about here, with the reason: "Operation Exception".
func notReached() map[string]string {
	all := map[string]string{
		"CreateDynamicThingGroup ResourceNotFoundException": "a dynamic group refers to nothing that could be missing",
		"ListBillingGroups ResourceNotFoundException":       "a list of the account's groups names no resource",
		"DeleteThing ResourceNotFoundException":             "deleting a thing that is not there succeeds",
		"DetachPolicy LimitExceededException":               "taking away exceeds nothing",
		"GetEffectivePolicies LimitExceededException":       "reading counts against no limit",
		"ListAttachedPolicies LimitExceededException":       "reading counts against no limit",
		"ListTargetsForPolicy LimitExceededException":       "reading counts against no limit",
		"TestAuthorization LimitExceededException":          "its own limit, ten questions, is the model's and so an InvalidRequestException",
	}
	maps.Copy(all, certificatesNotReached())
	maps.Copy(all, indexNotReached())
	maps.Copy(all, templatesNotReached())
	maps.Copy(all, registrationTasksNotReached())
	maps.Copy(all, certificateProvidersNotReached())
	return all
}

// named returns a fresh name with a readable beginning, at most 60 characters.
func named(what string) string { return what + "-" + strings.ToLower(rand.Text()[:10]) }

// TestAnswers calls every operation for success and for each exception that
// the model documents for it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	checkAnswers(t)
}

// checkAnswers makes all calls to a server with the flags.
func checkAnswers(t *testing.T, flags ...string) {
	t.Helper()
	// The limits of AWS are off unless asked for.
	flags = append(flags, "--registry.max-groups-per-thing=10", "--provisioning.tasks-per-account=1000")
	server := startServerWith(t, append(flags, signerFlags()...)...)
	for _, c := range answerCases() {
		name := c.op + "/" + c.want
		if c.want == "" {
			name = c.op + "/success"
		}
		if c.rule != "" {
			name += "/" + c.rule
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOperator(t, server)
			checkAnswer(t, c, c.do(o))
		})
	}
}

// checkAnswer compares what came back with what the case wants. The SDK must
// have made its own type of an exception, which it does for the operation's
// documented ones only.
func checkAnswer(t *testing.T, c answerCase, err error) {
	t.Helper()
	if c.want == "" {
		if err != nil {
			t.Errorf("%s: %v", c.op, err)
		}
		return
	}
	code, message := answered(err)
	var operation *smithy.OperationError
	if code != c.want || !errors.As(err, &operation) || operation.OperationName != c.op {
		t.Fatalf("got %v, want %s of %s", err, c.want, c.op)
	}
	if _, generic := errors.AsType[*smithy.GenericAPIError](err); generic {
		t.Errorf("the SDK does not know %s as an exception of %s", c.want, c.op)
	}
	if message == "" || !strings.Contains(message, c.says) {
		t.Errorf("message %q, want one with %q", message, c.says)
	}
}

// TestAnswersAreAllShown holds the cases against the model: an operation that
// is offered needs a success and every documented exception a case or a reason.
func TestAnswersAreAllShown(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	register(s)
	operations, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, c := range answerCases() {
		shown[c.op+" "+c.want] = true
	}
	reasons := notReached()
	for _, op := range operations.Operations(catalog.IoT) {
		if !s.Offers(catalog.IoT, op.Name) || !slices.Contains(matrixDomains(), op.Domain) && !slices.Contains(alsoInMatrix(), op.Name) {
			continue
		}
		if !shown[op.Name+" "] {
			t.Errorf("%s: no case for success", op.Name)
		}
		for _, exception := range op.Errors {
			pair := op.Name + " " + exception
			if notFromOutside()[exception] != "" {
				continue
			}
			if (reasons[pair] == "") == !shown[pair] {
				t.Errorf("%s: needs a case or a reason why there is none, and not both", pair)
			}
			delete(reasons, pair)
		}
	}
	for _, pair := range slices.Sorted(maps.Keys(reasons)) {
		t.Errorf("a reason for %s, which the model does not document or we do not offer", pair)
	}
}
