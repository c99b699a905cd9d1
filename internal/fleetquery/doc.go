// Package fleetquery is the fleet index query language, version 2017-09-30:
// text to a typed tree, and a reference evaluator that is slow and obvious.
// It knows words, numbers and fields, not devices, indexes or accounts; which
// field names exist is the caller's business, by Options.Resolve. The package
// is pure: no I/O, no goroutines, no state.
//
// How text is read. A string value is folded to lower case and split at white
// space into words. A term equals one whole word, or a number when the term
// is a JSON number; a phrase is a run of consecutive words of one value; a
// pattern with * or ? and a range of text are tested against single words;
// numbers are compared with numbers only. A field that holds several values
// satisfies a test when any one of them does.
package fleetquery
