// Package bulk carries a file of things to a server: it reads CSV and NDJSON,
// sends batches side by side, tries again what did not reach the server, keeps
// a journal of what is done and a report of what failed. It must not know what
// a valid thing is, which the server alone decides, nor how progress is shown.
//
// The goroutines of Run, as many as batches may be under way and one that
// records them, end before it returns. Memory does not grow with the file.
package bulk
