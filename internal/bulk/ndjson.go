package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Members of NDJSON that CSV writes otherwise.
const (
	memberAttributes = "attributes"
	// memberError is what a report adds; it is no part of a thing.
	memberError = "error"
)

// parseJSONThing reads an object. Unlike json.Unmarshal it takes names of
// members as they are and refuses one that stands there twice: of two values
// one would be lost without a word.
func parseJSONThing(raw []byte) (apiclient.ImportThing, error) {
	var t apiclient.ImportThing
	if !utf8.Valid(raw) {
		return t, errNotUTF8
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	err := members(decoder, func(name string) error {
		switch name {
		case columnName:
			return decoder.Decode(&t.Name)
		case columnType:
			return decoder.Decode(&t.TypeName)
		case columnBilling:
			return decoder.Decode(&t.BillingGroup)
		case columnGroups:
			return decoder.Decode(&t.Groups)
		case memberAttributes:
			t.Attributes = map[string]string{}
			return members(decoder, func(attribute string) error {
				var value string
				err := decoder.Decode(&value)
				t.Attributes[attribute] = value
				return err
			})
		case memberError:
			var ignored json.RawMessage
			return decoder.Decode(&ignored)
		}
		return errors.New("no member of a thing; there are name, type, billing_group, groups and attributes")
	})
	if err != nil {
		return apiclient.ImportThing{}, plain(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return apiclient.ImportThing{}, errors.New("there is more than one object on the line")
	}
	return t, nil
}

// jsonThing is a thing as NDJSON has it.
type jsonThing struct {
	Name         string            `json:"name"`
	Type         string            `json:"type,omitempty"`
	BillingGroup string            `json:"billing_group,omitempty"`
	Groups       []string          `json:"groups,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
}

// WriteThing writes a line of NDJSON.
func WriteThing(w io.Writer, t apiclient.ImportThing) error {
	data, err := json.Marshal(jsonThing{t.Name, t.TypeName, t.BillingGroup, t.Groups, t.Attributes})
	if err == nil {
		_, err = w.Write(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write thing %q: %w", t.Name, err)
	}
	return nil
}

// members walks an object and refuses a second member of one name.
func members(decoder *json.Decoder, value func(name string) error) error {
	open, err := decoder.Token()
	if err != nil {
		return err //nolint:wrapcheck // plain says it
	}
	if open != json.Delim('{') {
		return errors.New("there is no object")
	}
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err //nolint:wrapcheck // as above
		}
		name, ok := token.(string)
		if !ok {
			return errors.New("a member has no name")
		}
		if seen[name] {
			return fmt.Errorf("there are two members %q", name)
		}
		seen[name] = true
		if err := value(name); err != nil {
			return fmt.Errorf("%s: %w", name, plain(err))
		}
	}
	_, err = decoder.Token()
	return err //nolint:wrapcheck // as above
}

// plain says in a few words what the decoder did not like.
func plain(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a %s stands where a text must", wrong.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the object does not end")
	}
	return err
}
