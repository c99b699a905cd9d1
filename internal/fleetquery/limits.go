package fleetquery

// The published limits of the query language, some from older editions.
const (
	// MaxTerms bounds the leaves of a query.
	MaxTerms = 12
	// MaxBytes bounds the UTF-8 length of a query.
	MaxBytes = 1000
	// MaxLeadingWildcards bounds the terms that start with a wildcard.
	MaxLeadingWildcards = 1
	// MaxLeadingWildcardCharacters bounds a query that has such a term.
	MaxLeadingWildcardCharacters = 100
	// MaxStars bounds the * in one term.
	MaxStars = 2
	// MaxQuestionMarks bounds the ? in one term.
	MaxQuestionMarks = 5
	// MaxDepth bounds nested groups and negations; our own limit.
	MaxDepth = 50
)

// Limits are the bounds that a query is held to.
type Limits struct {
	Terms                     int
	Bytes                     int
	LeadingWildcards          int
	LeadingWildcardCharacters int
	Stars                     int
	QuestionMarks             int
	Depth                     int
}

// DefaultLimits returns the published limits.
func DefaultLimits() Limits {
	return Limits{
		Terms:                     MaxTerms,
		Bytes:                     MaxBytes,
		LeadingWildcards:          MaxLeadingWildcards,
		LeadingWildcardCharacters: MaxLeadingWildcardCharacters,
		Stars:                     MaxStars,
		QuestionMarks:             MaxQuestionMarks,
		Depth:                     MaxDepth,
	}
}
