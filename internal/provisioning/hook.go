package provisioning

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode/utf8"

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
	overrides, err := readAnswer(answer)
	if errors.Is(err, errHookRefused) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read the hook's answer: %w", err)
	}
	all := maps.Clone(in.Parameters)
	maps.Copy(all, overrides)
	return all, nil
}

// readAnswer returns the parameters that a hook replaces, or errHookRefused. What
// the standard decoder would let pass or make something of is no clear yes: a name
// in other letters, a member that comes twice, null for a text, bytes that are no
// text.
func readAnswer(answer []byte) (map[string]string, error) {
	if !utf8.Valid(answer) {
		return nil, errors.New("it is not UTF-8")
	}
	all, err := members(answer)
	if err != nil {
		return nil, err
	}
	switch allowed := string(all["allowProvisioning"]); allowed {
	case "true":
	case "", "false":
		return nil, errHookRefused
	default:
		return nil, errors.New("allowProvisioning is no boolean")
	}
	given := all["parameterOverrides"]
	if len(given) == 0 || string(given) == "null" {
		return nil, nil //nolint:nilnil // it replaces nothing
	}
	texts, err := members(given)
	if err != nil {
		return nil, fmt.Errorf("parameterOverrides: %w", err)
	}
	overrides := make(map[string]string, len(texts))
	for name, text := range texts {
		var value *string
		if err := json.Unmarshal(text, &value); err != nil || value == nil {
			return nil, fmt.Errorf("the value of parameter %s is no text", name)
		}
		if len(*value) > maxOverride {
			return nil, fmt.Errorf("the value of parameter %s has more than %d bytes", name, maxOverride)
		}
		overrides[name] = *value
	}
	return overrides, nil
}

// members splits one object, in which no name comes twice.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	all := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("read a name: %w", err)
		}
		name := token.(string) //nolint:forcetypeassert // the decoder gives nothing else in an object
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("read the value of %.128q: %w", name, err)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("the member %.128q comes twice", name)
		}
		all[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("read the end of an object: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the object")
	}
	return all, nil
}
