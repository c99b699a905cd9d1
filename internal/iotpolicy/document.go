package iotpolicy

import "fmt"

// Effect is what a matching statement does.
type Effect string

// Effects.
const (
	Allow Effect = "Allow"
	Deny  Effect = "Deny"
)

// Language versions. Under the older one, variables are plain text.
const (
	Version2008 = "2008-10-17"
	Version2012 = "2012-10-17"
)

// Document is a checked policy document. It is immutable and may be shared.
type Document struct {
	Version    string
	ID         string
	Statements []Statement
}

// Place is where something stands in a document, in lines and characters from
// 1.
type Place struct{ Line, Column int }

// Statement is one rule of a document.
type Statement struct {
	Sid    string
	Effect Effect
	// Actions as written; with NotAction they are the excluded ones.
	Actions   []string
	NotAction bool
	// Resources as written; with NotResource they are the excluded ones.
	Resources   []string
	NotResource bool
	// Place is where the statement begins.
	Place

	actions    []pattern
	resources  []template
	conditions []condition
	// actionPlaces and resourcePlaces say where each of them stands.
	actionPlaces, resourcePlaces []Place
}

// Limits bound a document before it is read.
type Limits struct {
	// MaxCharacters counts characters without white space.
	MaxCharacters int
	// MaxBytes counts everything.
	MaxBytes int
}

// DefaultLimits are the quota of 2,048 characters and the length that the
// service model allows for the whole text.
func DefaultLimits() Limits { return Limits{MaxCharacters: 2048, MaxBytes: 404_600} }

// SyntaxError says what is wrong with a document and where.
type SyntaxError struct {
	// Offset counts bytes from 0; Line and Column, in characters, from 1.
	Offset, Line, Column int
	// Problem is safe for callers.
	Problem string
}

// Error returns the place and the problem.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}
