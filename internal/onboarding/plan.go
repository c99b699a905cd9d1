package onboarding

import (
	"strconv"
	"strings"
	"time"
)

// Status is the state of a plan or of one of its versions.
type Status string

// States of plans. A plan is what its newest version in force is; a version is
// RETIRED when another one took its place, too.
const (
	StatusDraft     Status = "DRAFT"
	StatusPublished Status = "PUBLISHED"
	StatusRetired   Status = "RETIRED"
)

// StageKind says what a stage is about.
type StageKind string

// Kinds of stages.
const (
	KindManufacture  StageKind = "MANUFACTURE"
	KindRegistration StageKind = "REGISTRATION"
	KindActivation   StageKind = "ACTIVATION"
	KindCustom       StageKind = "CUSTOM"
)

// Mode says who completes a step.
type Mode string

// Modes of steps. A person reports a MANUAL step; a program reports a
// PROGRAMMATIC one, or the platform sees it.
const (
	Manual       Mode = "MANUAL"
	Programmatic Mode = "PROGRAMMATIC"
)

// KeySource says what a device's record is found by.
type KeySource string

// Sources of device keys.
const (
	// KeyUniqueID is the thing attribute that metadata.uniqueId names.
	KeyUniqueID KeySource = "UNIQUE_ID"
	// KeyThingName is the name of the thing.
	KeyThingName KeySource = "THING_NAME"
	// KeyCertificate is the certificate's id, which is its SHA-256 fingerprint.
	KeyCertificate KeySource = "CERTIFICATE"
)

// Plan is the document of how devices of a product line come into service.
type Plan struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	ProductLine string `json:"productLine,omitempty"`
	// SelfProvisioned says that devices join by themselves, without a user.
	SelfProvisioned bool `json:"selfProvisioned,omitempty"`
	// OwnershipCheck says in words how it is made sure that a new device is ours.
	OwnershipCheck string    `json:"ownershipCheck,omitempty"`
	AppliesTo      AppliesTo `json:"appliesTo,omitzero"`
	// DeviceKey is KeyUniqueID when empty and metadata has a uniqueId, else
	// KeyThingName.
	DeviceKey KeySource `json:"deviceKey,omitempty"`
	Metadata  Metadata  `json:"metadata,omitzero"`
	Stages    []Stage   `json:"stages"`
}

// AppliesTo says which devices follow a plan that were not announced for one: the
// first that fits of template, authority and thing type decides.
type AppliesTo struct {
	Templates []string `json:"templates,omitempty"`
	// Authorities are ids of registered CA certificates.
	Authorities []string `json:"authorities,omitempty"`
	ThingTypes  []string `json:"thingTypes,omitempty"`
}

// Metadata says how what is known from manufacture becomes attributes of things.
type Metadata struct {
	UniqueID     *Field `json:"uniqueId,omitempty"`
	Manufacturer *Field `json:"manufacturer,omitempty"`
	// ModelNumber may name the thing type of each model; others are refused then.
	ModelNumber *Field `json:"modelNumber,omitempty"`
	Generation  *Field `json:"generation,omitempty"`
	// ManufacturingDate is a date such as 2026-11-26, so that text order is time
	// order and a query can ask for a range.
	ManufacturingDate *Field `json:"manufacturingDate,omitempty"`
	// Within is the time after the activation in which the thing has to be as this
	// says, as an exit criterion; left out, it is noted when it is not.
	Within Span `json:"within,omitempty"`
}

// Field is one fact of manufacture.
type Field struct {
	// Attribute is the name of the thing attribute that holds it.
	Attribute string `json:"attribute"`
	Required  bool   `json:"required,omitempty"`
	// ThingTypes are by model; for modelNumber only.
	ThingTypes map[string]string `json:"thingTypes,omitempty"`
}

// Stage is a part of the way that one actor is answerable for.
type Stage struct {
	ID string `json:"id"`
	// Order is the place of the stage; left out, it is the place in the list.
	Order int       `json:"order,omitempty"`
	Title string    `json:"title,omitempty"`
	Kind  StageKind `json:"kind"`
	Actor Actor     `json:"actor"`
	// Limit is how long a device may be in the stage before it counts as stuck.
	Limit        Span        `json:"limit,omitempty"`
	Steps        []Step      `json:"steps"`
	ExitCriteria []Criterion `json:"exitCriteria,omitempty"`
}

// Actor is who is answerable for a stage.
type Actor struct {
	Role         string `json:"role"`
	Organisation string `json:"organisation,omitempty"`
	Contact      string `json:"contact,omitempty"`
}

// Step is one thing to do.
type Step struct {
	// ID is unique within the plan.
	ID    string `json:"id"`
	Order int    `json:"order,omitempty"`
	Title string `json:"title"`
	Mode  Mode   `json:"mode"`
	// Instruction is Markdown.
	Instruction string `json:"instruction,omitempty"`
	// APIRef names the operation that does a PROGRAMMATIC step.
	APIRef           string `json:"apiRef,omitempty"`
	EvidenceRequired bool   `json:"evidenceRequired,omitempty"`
	// DependsOn are steps of this or of earlier stages that come first.
	DependsOn []string `json:"dependsOn,omitempty"`
	// State ties the step to a state of the device. A MANUAL step brings the device
	// there; a PROGRAMMATIC one is done when the platform sees it there.
	State State `json:"state,omitempty"`
}

// Criterion is a fleet query that the device's thing must match within a time of
// its activation.
type Criterion struct {
	Predicate string `json:"predicate"`
	Within    Span   `json:"within"`
}

// Span is a length of time in words: days, or what Go reads, as 30d, 12h or 90s.
type Span string

// Duration reads a span; 0 for one that is none.
func (s Span) Duration() time.Duration {
	if days, ok := strings.CutSuffix(string(s), "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > maxDays {
			return 0
		}
		return time.Duration(n) * 24 * time.Hour
	}
	d, err := time.ParseDuration(string(s))
	if err != nil || d < 0 || d > maxDays*24*time.Hour {
		return 0
	}
	return d
}

// maxDays bounds a span: about ten years.
const maxDays = 3660

// stage finds a stage, nil for none.
func (p *Plan) stage(id string) *Stage {
	for i := range p.Stages {
		if p.Stages[i].ID == id {
			return &p.Stages[i]
		}
	}
	return nil
}

// step finds a step and its stage, nil for none.
func (p *Plan) step(id string) (*Stage, *Step) {
	for i := range p.Stages {
		for j := range p.Stages[i].Steps {
			if p.Stages[i].Steps[j].ID == id {
				return &p.Stages[i], &p.Stages[i].Steps[j]
			}
		}
	}
	return nil, nil
}

// who names an actor.
func (a Actor) who() string {
	if a.Organisation == "" {
		return a.Role
	}
	return a.Role + ", " + a.Organisation
}

// fact is a named field of the metadata.
type fact struct {
	name string
	*Field
}

// facts are the fields that a plan has.
func (m *Metadata) facts() []fact {
	var out []fact
	for _, f := range []fact{
		{factUniqueID, m.UniqueID},
		{factManufacturer, m.Manufacturer},
		{factModel, m.ModelNumber},
		{factGeneration, m.Generation},
		{factDate, m.ManufacturingDate},
	} {
		if f.Field != nil {
			out = append(out, f)
		}
	}
	return out
}

// Names of the facts of manufacture.
const (
	factUniqueID     = "uniqueId"
	factManufacturer = "manufacturer"
	factModel        = "modelNumber"
	factGeneration   = "generation"
	factDate         = "manufacturingDate"
)

// normalize fills in what may be left out.
func (p *Plan) normalize() {
	if p.DeviceKey == "" {
		p.DeviceKey = KeyThingName
		if p.Metadata.UniqueID != nil {
			p.DeviceKey = KeyUniqueID
		}
	}
	for i := range p.Stages {
		s := &p.Stages[i]
		if s.Order == 0 {
			s.Order = i + 1
		}
		if s.Title == "" {
			s.Title = s.ID
		}
		for j := range s.Steps {
			if s.Steps[j].Order == 0 {
				s.Steps[j].Order = j + 1
			}
		}
	}
}
