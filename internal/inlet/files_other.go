//go:build !unix

package inlet

// fileLimit is how many files this process may have open, 0 if unknown.
func fileLimit() uint64 { return 0 }
