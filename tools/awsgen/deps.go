//go:build deps

package main

// The modules whose files are the generator's input. Nothing is called in
// them; the imports keep them in go.mod at a fixed version.
import (
	_ "github.com/aws/aws-sdk-go-v2/service/iot/types"
	_ "github.com/aws/aws-sdk-go/aws"
)
