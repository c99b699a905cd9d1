package iot

import (
	"strings"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/registry"
)

// The operations on certificates and policies have markers for page tokens,
// whose pattern in the service model allows the standard base64 alphabet only,
// while page tokens are in the one for addresses. These two functions stand
// between the alphabets.

// markerPage is page for an operation with markers.
func markerPage(c *awsapi.Call, marker *string, size *int32, filter ...string) (registry.Page, error) {
	if marker != nil {
		marker = new(strings.NewReplacer("+", "-", "/", "_").Replace(*marker))
	}
	return page(c, marker, size, filter...)
}

// nextMarker is the token of the next page for an operation with markers.
func nextMarker(c *awsapi.Call, last string, filter ...string) *string {
	token := c.NextToken(last, filter...)
	if token != nil {
		token = new(strings.NewReplacer("-", "+", "_", "/").Replace(*token))
	}
	return token
}
