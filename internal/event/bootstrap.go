package event

import "github.com/muster-iot/muster/internal/fleet"

// BootstrapAssignmentChanged reports that devices which ask the bootstrap address are
// sent somewhere else than before. After a deletion only its id, kind and version hold.
type BootstrapAssignmentChanged struct {
	Assignment string                    `json:"assignment"`
	Change     BootstrapAssignmentChange `json:"change"`
	Kind       string                    `json:"kind"`
	// Target is the account that devices are sent to.
	Target   fleet.Account `json:"target,omitempty"`
	Template string        `json:"template,omitempty"`
	Enabled  bool          `json:"enabled,omitempty"`
	Version  int64         `json:"version"`
}

// BootstrapAssignmentChange says what happened to an assignment.
type BootstrapAssignmentChange string

// Changes of assignments.
const (
	BootstrapAssignmentCreated BootstrapAssignmentChange = "CREATED"
	BootstrapAssignmentUpdated BootstrapAssignmentChange = "UPDATED"
	BootstrapAssignmentDeleted BootstrapAssignmentChange = "DELETED"
)

// BootstrapAnswered reports a device that asked where to join and was told. It is in
// the account that made the assignment and in the one that the device was sent to; of
// one certificate that asks again and again, once a minute.
type BootstrapAnswered struct {
	CertificateID string `json:"certificateId"`
	// Serial is that in the subject of the certificate, empty for none.
	Serial     string `json:"serial,omitempty"`
	Assignment string `json:"assignment"`
	// Owner has made the assignment, Target is where the device was sent to.
	Owner    fleet.Account `json:"owner"`
	Target   fleet.Account `json:"target"`
	Template string        `json:"template,omitempty"`
	// Approval is how the device stands with those who decide about its template.
	Approval string `json:"approval,omitempty"`
	Request  string `json:"request,omitempty"`
	// Transport is HTTPS or MQTT; a device that asks by MQTT has a client id.
	Transport string `json:"transport"`
	ClientID  string `json:"clientId,omitempty"`
	// Suppressed counts answers and refusals since the last report that had none.
	Suppressed int `json:"suppressed,omitempty"`
}

// BootstrapRefused reports a device that asked where to join and was not told. It is in
// the account that knows the certificate, else in the default one; of one certificate,
// once a minute.
type BootstrapRefused struct {
	CertificateID string `json:"certificateId"`
	// Serial is set for a certificate that is known.
	Serial     string `json:"serial,omitempty"`
	Assignment string `json:"assignment,omitempty"`
	// Code is what the device got, Reason what the operator should know.
	Code       string `json:"code"`
	Reason     string `json:"reason"`
	Transport  string `json:"transport"`
	ClientID   string `json:"clientId,omitempty"`
	Suppressed int    `json:"suppressed,omitempty"`
}

func (BootstrapAssignmentChanged) isEvent() {}
func (BootstrapAnswered) isEvent()          {}
func (BootstrapRefused) isEvent()           {}
