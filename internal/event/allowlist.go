package event

// SupplierChanged reports a change of a supplier of allow lists.
type SupplierChanged struct {
	Supplier string         `json:"supplier"`
	Change   SupplierChange `json:"change"`
	Status   string         `json:"status,omitempty"`
	// KeyID is of KEY_CHANGED.
	KeyID string `json:"keyId,omitempty"`
}

// SupplierChange says what happened to a supplier.
type SupplierChange string

// Changes of a supplier.
const (
	SupplierCreated    SupplierChange = "CREATED"
	SupplierUpdated    SupplierChange = "UPDATED"
	SupplierKeyChanged SupplierChange = "KEY_CHANGED"
	SupplierDeleted    SupplierChange = "DELETED"
)

// AllowListChanged reports a change of an allow list. It holds nothing of what the list
// says.
type AllowListChanged struct {
	List     string          `json:"list"`
	Supplier string          `json:"supplier,omitempty"`
	Revision int64           `json:"revision,omitempty"`
	Change   AllowListChange `json:"change"`
	// Digest is the SHA-256 of the upload.
	Digest  string `json:"digest,omitempty"`
	Entries int    `json:"entries,omitempty"`
	// KeyID is the supplier's key that has signed.
	KeyID string `json:"keyId,omitempty"`
	// Link is the upload link that was made, revoked or used.
	Link   string `json:"link,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// AllowListChange says what happened to an allow list.
type AllowListChange string

// Changes of an allow list.
const (
	AllowListUploaded      AllowListChange = "UPLOADED"
	AllowListUploadRefused AllowListChange = "UPLOAD_REFUSED"
	AllowListAccepted      AllowListChange = "ACCEPTED"
	AllowListRejected      AllowListChange = "REJECTED"
	AllowListDeleteAsked   AllowListChange = "DELETE_ASKED"
	AllowListKept          AllowListChange = "KEPT"
	AllowListDeleted       AllowListChange = "DELETED"
	AllowListLinkCreated   AllowListChange = "LINK_CREATED"
	AllowListLinkRevoked   AllowListChange = "LINK_REVOKED"
)

// AllowListRead reports that somebody has read what a list says. List is empty for a
// device that was looked for and is on none.
type AllowListRead struct {
	List     string           `json:"list,omitempty"`
	Revision int64            `json:"revision,omitempty"`
	What     AllowListReading `json:"what"`
}

// AllowListReading says what was read.
type AllowListReading string

// Readings.
const (
	AllowListReadOriginal   AllowListReading = "ORIGINAL"
	AllowListReadDifference AllowListReading = "DIFFERENCE"
	AllowListReadEntry      AllowListReading = "ENTRY"
)

// AllowListEntryChanged reports what became of an entry: CLAIMED by a device that has
// joined, BLOCKED or UNUSED by an operator. It names the device and not what the list
// says of it.
type AllowListEntryChanged struct {
	List     string `json:"list"`
	Revision int64  `json:"revision"`
	Supplier string `json:"supplier"`
	State    string `json:"state"`
	// Found is FINGERPRINT or SERIAL for a claim.
	Found         string `json:"found,omitempty"`
	Thing         string `json:"thing,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Reason        string `json:"reason,omitempty"`
}

// DuplicateSerial reports a device that wants to join with an entry of an allow list
// that another one has used. Which of them is the right one nobody knows.
type DuplicateSerial struct {
	// Thing and CertificateID are who came second; Thing is what it would have been.
	Thing         string `json:"thing,omitempty"`
	CertificateID string `json:"certificateId"`
	// OtherThing and OtherCertificateID are who has joined.
	OtherThing         string `json:"otherThing,omitempty"`
	OtherCertificateID string `json:"otherCertificateId"`
	ListID             string `json:"listId"`
	Revision           int64  `json:"revision"`
	Supplier           string `json:"supplier,omitempty"`
}
