package mqttseq

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// group is a list of sequences with common defaults.
type group struct {
	Group            string `json:"group"`
	Ver              int    `json:"ver"`
	Connect          *bool  `json:"connect"`
	ExpectDisconnect *bool  `json:"expect_disconnect"`
	Disable          bool   `json:"disable"`
	Tests            []test `json:"tests"`
}

// test is one sequence.
type test struct {
	Name             string    `json:"name"`
	Ver              int       `json:"ver"`
	Connect          *bool     `json:"connect"`
	ExpectDisconnect *bool     `json:"expect_disconnect"`
	Messages         []message `json:"msgs"`
}

// message is one step of a sequence.
type message struct {
	Type    string `json:"type"`
	Payload string `json:"payload"`
	Topic   string `json:"topic"`
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
}

// sequence is a test with all defaults applied.
type sequence struct {
	Name       string
	Ver        byte
	Connect    bool
	Disconnect bool
	Messages   []message
}

// load reads all sequences of a folder.
func load(folder string) ([]sequence, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []sequence
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var groups []group
		if err := json.Unmarshal(raw, &groups); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for i := range groups {
			all = append(all, groups[i].sequences(strings.TrimSuffix(filepath.Base(file), ".json"))...)
		}
	}
	return all, nil
}

// sequences applies a group's defaults.
func (g *group) sequences(file string) []sequence {
	if g.Disable {
		return nil
	}
	var all []sequence
	for i := range g.Tests {
		t := &g.Tests[i]
		s := sequence{Name: file + " | " + g.Group + " | " + t.Name, Ver: 4, Connect: true, Disconnect: true, Messages: t.Messages}
		for _, v := range []int{g.Ver, t.Ver} {
			if v != 0 {
				s.Ver = byte(v)
			}
		}
		for _, v := range []*bool{g.Connect, t.Connect} {
			if v != nil {
				s.Connect = *v
			}
		}
		for _, v := range []*bool{g.ExpectDisconnect, t.ExpectDisconnect} {
			if v != nil {
				s.Disconnect = *v
			}
		}
		all = append(all, s)
	}
	return all
}

// parse turns the notation of a payload into bytes.
func parse(text string) ([]byte, error) {
	var out []byte
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if quoted, ok := strings.CutPrefix(text, "'"); ok {
			inner, rest, found := strings.Cut(quoted, "'")
			if !found {
				return nil, fmt.Errorf("unclosed quote in %q", text)
			}
			out, text = append(out, inner...), rest
			continue
		}
		token, rest, _ := strings.Cut(text, " ")
		text = rest
		var err error
		if out, err = appendToken(out, token); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// appendToken appends one number or some hex digits.
func appendToken(out []byte, token string) ([]byte, error) {
	if !strings.ContainsAny(token[:1], "iHkmsLvr") {
		b, err := hex.DecodeString(token)
		return append(out, b...), err
	}
	n, err := strconv.ParseUint(token[1:], 10, 32)
	if err != nil {
		return nil, err
	}
	switch token[0] {
	case 'i':
		return append(out, byte(n)), nil
	case 'H', 'k', 'm', 's':
		return binary.BigEndian.AppendUint16(out, uint16(n)), nil
	case 'L':
		return binary.BigEndian.AppendUint32(out, uint32(n)), nil
	default:
		for n >= 0x80 {
			out = append(out, byte(n)|0x80)
			n >>= 7
		}
		return append(out, byte(n)), nil
	}
}
