package inlet

const (
	// reservedFiles is what store, logs and outgoing connections may need.
	reservedFiles = 1536
	// mostConnections is far above what one process can serve.
	mostConnections = 1 << 20
)

// Connections is how many connections the process may have open so that enough
// files are left for everything else: a store that cannot open its files
// stands still.
func Connections() int { return connectionsOf(fileLimit()) }

// connectionsOf is Connections for a limit on open files; 0 means unknown.
func connectionsOf(files uint64) int {
	if files == 0 || files > mostConnections+reservedFiles {
		return mostConnections
	}
	return int(files - min(files/2, reservedFiles))
}
