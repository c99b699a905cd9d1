package config

// Bounds of a shadow's document: what a message over MQTT can carry twice, and
// what the fleet index takes as a path.
const (
	minDocumentBytes = 1 << 10
	maxDocumentBytes = 48 << 10
	maxDocumentDepth = 30
)

// validateShadow checks the settings of the device shadows.
func (s *Settings) validateShadow(c *checker) {
	v := &s.Shadow
	c.require(v.MaxDocumentBytes >= minDocumentBytes && v.MaxDocumentBytes <= maxDocumentBytes, "shadow.max-document-bytes", "must be from 1KiB to 48KiB")
	c.require(v.MaxDepth >= 1 && v.MaxDepth <= maxDocumentDepth, "shadow.max-depth", "must be from 1 to %d", maxDocumentDepth)
	c.require(v.MaxRequestsPerSecond >= 0, "shadow.max-requests-per-second", "must not be negative")
	c.require(v.MaxInFlight >= 0, "shadow.max-in-flight", "must not be negative")
	c.require(v.HistoryVersions >= 0, "shadow.history-versions", "must not be negative")
	c.require(v.HistoryAge == 0 || v.HistoryAge >= minRetentionAge, "shadow.history-age", "must be 0 or at least %v", minRetentionAge)
	c.require(v.HistoryBytes == 0 || v.HistoryBytes >= minRetentionBytes, "shadow.history-bytes", "must be 0 or at least 1MiB")
}
