package shadow

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// Texts of refusals; devices and their tools know them.
const (
	msgInvalidJSON    = "Invalid JSON"
	msgMissingState   = "Missing required node: state"
	msgStateObject    = "State node must be an object"
	msgDesiredObject  = "Desired node must be an object"
	msgReportedObject = "Reported node must be an object"
	msgInvalidVersion = "Invalid version"
	msgInvalidToken   = "Invalid clientToken"
	msgTooDeep        = "JSON contains too many levels of nesting; maximum is %d"
	msgInvalidNode    = "State contains an invalid node"
	msgNoThing        = "Thing not found"
	msgNoShadow       = "No shadow exists with name: '%s'"
	msgConflict       = "Version conflict"
	msgTooLarge       = "The payload exceeds the maximum size allowed"
	msgEncoding       = "Unsupported documented encoding; supported encoding is UTF-8"
	msgTooMany        = "Too many requests for the thing"
	msgThrottled      = "Too many in-flight requests for the thing"
)

// maxToken bounds a client token in bytes.
const maxToken = 64

// Token is a client token as the JSON text that answers carry, quotes
// included; empty when the request had none.
type Token string

// section is what a request says about desired or reported.
type section struct {
	// named is true when the request mentions the section.
	named bool
	// removed is true when it is null, which removes the whole section.
	removed bool
	kids    []node
}

// request is a parsed update.
type request struct {
	desired, reported section
	// version is the expected version, -1 when the request has none.
	version int64
	token   Token
	// bytes is the length of the text that the nodes refer to.
	bytes int
	// nodes is the number of nodes.
	nodes int
}

// parseRequest reads an update document. The token is valid also when the
// document is refused, as far as it was found.
func parseRequest(body []byte, at int64, limits Limits) (request, error) {
	r := request{version: -1}
	if len(body) > limits.BodyBytes {
		return r, &fault.Error{Code: fault.RequestEntityTooLarge, Message: msgTooLarge}
	}
	if !utf8.Valid(body) {
		return r, &fault.Error{Code: fault.UnsupportedDocumentEncoding, Message: msgEncoding}
	}
	p := &parser{s: string(body), at: at, maxDepth: limits.Depth, room: 2 * len(body), stack: make([]node, 0, 16)}
	hasState := false
	ok := p.topLevel(func(key string) bool {
		switch key {
		case "state":
			hasState = true
			return p.state(&r, limits)
		case "version":
			return p.version(&r)
		case "clientToken":
			return p.token(&r.token)
		default:
			return p.skip()
		}
	})
	switch {
	case !ok:
		return r, &fault.Error{Code: fault.InvalidRequest, Message: msgInvalidJSON}
	case p.refusal != nil:
		return r, p.refusal
	case !hasState:
		return r, &fault.Error{Code: fault.InvalidRequest, Message: msgMissingState}
	}
	r.bytes, r.nodes = len(p.s), p.nodes
	return r, nil
}

// ParseToken reads the client token of a get or delete request, whose body may
// be empty.
func ParseToken(body []byte) (Token, error) {
	if len(body) == 0 {
		return "", nil
	}
	if !utf8.Valid(body) {
		return "", &fault.Error{Code: fault.UnsupportedDocumentEncoding, Message: msgEncoding}
	}
	var token Token
	p := &parser{s: string(body), room: 2 * len(body)}
	ok := p.topLevel(func(key string) bool {
		if key == "clientToken" {
			return p.token(&token)
		}
		return p.skip()
	})
	if !ok {
		return token, &fault.Error{Code: fault.InvalidRequest, Message: msgInvalidJSON}
	}
	if p.refusal != nil {
		return token, p.refusal
	}
	return token, nil
}

// topLevel reads an object that is the whole document; fn reads each value.
func (p *parser) topLevel(fn func(key string) bool) bool {
	p.space()
	if !p.take('{') {
		return false
	}
	p.space()
	if !p.take('}') {
		for {
			key, ok := p.key()
			if !ok || !fn(key) {
				return false
			}
			p.space()
			if p.take('}') {
				break
			}
			if !p.take(',') {
				return false
			}
		}
	}
	p.space()
	return p.i == len(p.s)
}

// skip reads a value that nobody looks at: it must be well formed, nothing is
// built and no limit but that of nesting applies.
func (p *parser) skip() bool {
	kept := *p
	p.refuse(fault.Internal, "skipping")
	_, ok := p.value(1, false)
	kept.i = p.i
	*p = kept
	return ok
}

// state reads the value of "state".
func (p *parser) state(r *request, limits Limits) bool {
	if p.peek() != '{' {
		p.refuse(fault.InvalidRequest, msgStateObject)
		return p.skip()
	}
	p.i++
	r.desired, r.reported = section{}, section{}
	room := p.room
	p.room, p.patch = 2*limits.StateBytes, true
	defer func() { p.room, p.patch = room, false }()
	p.space()
	if p.take('}') {
		return true
	}
	for {
		key, ok := p.key()
		if !ok || !p.section(key, r) {
			return false
		}
		p.space()
		if p.take('}') {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}

// section reads one member of "state".
func (p *parser) section(key string, r *request) bool {
	var into *section
	var message string
	switch key {
	case "desired":
		into, message = &r.desired, msgDesiredObject
	case "reported":
		into, message = &r.reported, msgReportedObject
	default:
		p.refuse(fault.InvalidRequest, msgInvalidNode)
		return p.skip()
	}
	n, ok := p.value(1, false)
	if !ok {
		return false
	}
	if n.kind != kindObject && n.kind != kindNull {
		p.refuse(fault.InvalidRequest, message)
		return true
	}
	*into = section{named: true, removed: n.kind == kindNull, kids: n.kids}
	return true
}

// version reads the expected version; null counts as absent.
func (p *parser) version(r *request) bool {
	n, ok := p.value(1, false)
	if !ok {
		return false
	}
	r.version = -1
	if n.kind == kindNull {
		return true
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if n.kind != kindNumber || err != nil || v < 0 {
		p.refuse(fault.InvalidRequest, msgInvalidVersion)
		return true
	}
	r.version = v
	return true
}

// token reads a client token; null counts as absent.
func (p *parser) token(into *Token) bool {
	n, ok := p.value(1, false)
	if !ok {
		return false
	}
	*into = ""
	switch {
	case n.kind == kindNull:
	case n.kind != kindString || decodedLength(n.text) > maxToken:
		p.refuse(fault.InvalidRequest, msgInvalidToken)
	default:
		*into = Token(n.text)
	}
	return true
}

// decodedLength returns the length in bytes of a canonical string's content.
func decodedLength(text string) int {
	n := len(text) - 2
	for rest := text; ; {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			return n
		}
		if rest[i+1] == 'u' {
			n -= 5
			rest = rest[i+6:]
			continue
		}
		n--
		rest = rest[i+2:]
	}
}
