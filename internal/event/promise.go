package event

// PromiseSettled reports that a thing was brought together with what its
// provisioning template promised of it. What it changed of the thing has events of
// its own in the same commit.
type PromiseSettled struct {
	Thing string `json:"thing"`
	// Template and TemplateVersion are empty for a body that has no name.
	Template        string `json:"template,omitempty"`
	TemplateVersion int64  `json:"templateVersion,omitempty"`
	// Action is REPAIR when the thing was changed, ACCEPT when the promise was.
	Action string `json:"action"`
	// Differences are those that were settled, as they were before.
	Differences []PromiseDifference `json:"differences"`
}

// PromiseDifference is something that was promised and was not so.
type PromiseDifference struct {
	Kind     string `json:"kind"`
	Name     string `json:"name,omitempty"`
	Promised string `json:"promised,omitempty"`
	Found    string `json:"found,omitempty"`
}

func (PromiseSettled) isEvent() {}
