package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
)

// hookVersion is the only payload version.
const hookVersion = "2020-04-01"

// maxOverride bounds the value of a parameter that a hook replaces, in bytes.
const maxOverride = 4096

// functionName is the configured name that a hook's target means: what comes
// behind "function:" in the ARN of a function, less its qualifier, or the whole
// text.
func functionName(target string) string {
	_, name, ok := strings.Cut(target, ":function:")
	if !ok {
		return target
	}
	name, _, _ = strings.Cut(name, ":")
	return name
}

// hookInput is what a hook is told.
type hookInput struct {
	ClaimCertificateID string            `json:"claimCertificateId"`
	CertificateID      string            `json:"certificateId"`
	CertificatePEM     string            `json:"certificatePem"`
	TemplateARN        string            `json:"templateArn"`
	ClientID           string            `json:"clientId"`
	Parameters         map[string]string `json:"parameters"`
}

// hookOutput is what a hook may answer.
type hookOutput struct {
	AllowProvisioning  bool              `json:"allowProvisioning"`
	ParameterOverrides map[string]string `json:"parameterOverrides"`
}

// errHookRefused is a hook that has answered no.
var errHookRefused = errors.New("the hook does not allow it")

// askHook asks a template's hook about a device and returns the parameters with
// what the hook replaces. Any answer but a clear yes refuses.
func (s *Service) askHook(ctx context.Context, target string, in hookInput) (map[string]string, error) {
	parameters, err := s.invokeHook(ctx, target, in)
	switch {
	case err == nil:
		s.metrics.hooks.WithLabelValues("allowed").Inc()
		return parameters, nil
	case errors.Is(err, errHookRefused):
		s.metrics.hooks.WithLabelValues("refused").Inc()
	default:
		s.metrics.hooks.WithLabelValues("failed").Inc()
	}
	return nil, fault.Wrap(fault.Forbidden, err, "The pre-provisioning hook did not allow the device")
}

// invokeHook returns what the hook's answer makes of the parameters.
func (s *Service) invokeHook(ctx context.Context, target string, in hookInput) (map[string]string, error) {
	if in.Parameters == nil {
		in.Parameters = map[string]string{}
	}
	input, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode the hook's input: %w", err)
	}
	answer, err := s.o.Functions.Invoke(ctx, functionName(target), input, HookLimit)
	if err != nil {
		return nil, fmt.Errorf("invoke hook: %w", err)
	}
	var out hookOutput
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("read the hook's answer: %w", err)
	}
	if !out.AllowProvisioning {
		return nil, errHookRefused
	}
	all := maps.Clone(in.Parameters)
	for name, value := range out.ParameterOverrides {
		if len(value) > maxOverride {
			return nil, fmt.Errorf("the hook's value of parameter %s has more than %d bytes", name, maxOverride)
		}
		all[name] = value
	}
	return all, nil
}
