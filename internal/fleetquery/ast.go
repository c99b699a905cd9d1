package fleetquery

// Query is a parsed query.
type Query struct {
	// Text is the query as it was given.
	Text string
	Root Node
	// Terms is the number of leaves, as the term limit counts them.
	Terms int
}

// Node is one part of a query; the set of types is closed.
//
//sumtype:decl
type Node interface{ isNode() }

// And holds when all its nodes hold.
type And struct{ Nodes []Node }

// Or holds when one of its nodes holds.
type Or struct{ Nodes []Node }

// Not holds when its node does not, also for a document without the field.
type Not struct{ Node Node }

// All holds for every document: a bare *.
type All struct{}

// Exists holds when the field, or a field below it, has a value: f:*.
type Exists struct{ Field string }

// Match holds when a word of the field equals Word, or a number of the field
// equals Number if the term is a number. An empty Field stands for every
// field that unfielded terms look at, here and in the types below.
type Match struct {
	Field string
	// Word is folded.
	Word     string
	Number   float64
	IsNumber bool
}

// Phrase holds when one value of the field has the words in a row. There are
// always two or more; a phrase of one word is a Match.
type Phrase struct {
	Field string
	// Words are folded.
	Words []string
}

// Wildcard holds when a word of the field fits the pattern.
type Wildcard struct {
	Field   string
	Pattern Pattern
}

// NumberRange holds when a number of the field lies between the bounds.
type NumberRange struct {
	Field     string
	Low, High NumberBound
}

// NumberBound is one end of a NumberRange.
type NumberBound struct {
	// Open means that there is no bound on this side.
	Open      bool
	Value     float64
	Inclusive bool
}

// TextRange holds when a word of the field lies between the bounds in byte
// order of the folded text.
type TextRange struct {
	Field     string
	Low, High TextBound
}

// TextBound is one end of a TextRange.
type TextBound struct {
	// Open means that there is no bound on this side.
	Open bool
	// Value is folded.
	Value     string
	Inclusive bool
}

// Geo holds when a place of the field lies in the area.
type Geo struct {
	Field string
	Area  Area
	// At is where the area stands in the query, in characters from 1.
	At int
}

func (And) isNode()         {}
func (Or) isNode()          {}
func (Not) isNode()         {}
func (All) isNode()         {}
func (Exists) isNode()      {}
func (Match) isNode()       {}
func (Phrase) isNode()      {}
func (Wildcard) isNode()    {}
func (NumberRange) isNode() {}
func (TextRange) isNode()   {}
func (Geo) isNode()         {}

// Contains reports whether v lies within both bounds.
func (r NumberRange) Contains(v float64) bool {
	if !r.Low.Open && (v < r.Low.Value || (v == r.Low.Value && !r.Low.Inclusive)) {
		return false
	}
	return r.High.Open || v < r.High.Value || (v == r.High.Value && r.High.Inclusive)
}

// Contains reports whether word lies within both bounds; word is folded.
func (r TextRange) Contains(word string) bool {
	if !r.Low.Open && (word < r.Low.Value || (word == r.Low.Value && !r.Low.Inclusive)) {
		return false
	}
	return r.High.Open || word < r.High.Value || (word == r.High.Value && r.High.Inclusive)
}

// Walk calls fn for every node, parents first.
func Walk(n Node, fn func(Node)) {
	fn(n)
	switch n := n.(type) {
	case And:
		for _, c := range n.Nodes {
			Walk(c, fn)
		}
	case Or:
		for _, c := range n.Nodes {
			Walk(c, fn)
		}
	case Not:
		Walk(n.Node, fn)
	case All, Exists, Match, Phrase, Wildcard, NumberRange, TextRange, Geo:
	}
}
