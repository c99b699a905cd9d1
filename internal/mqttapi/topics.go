package mqttapi

import (
	"strings"

	"github.com/muster-iot/muster/internal/topic"
)

// use says what a reserved topic is good for in this version.
type use uint8

const (
	// input is taken in and answered.
	input use = iota
	// output is published by the server only.
	output
	// passed goes to subscribers and to no service.
	passed
	// later is known and not offered yet.
	later
	// ingest is as later, and nobody may subscribe to it.
	ingest
)

// reservedTopic is one row of the table of reserved topics.
type reservedTopic struct {
	filter string
	use    use
}

// reservedTopics returns the table. The first row that matches a name counts.
func reservedTopics() []reservedTopic {
	const (
		classic = "$aws/things/+/shadow/"
		named   = "$aws/things/+/shadow/name/+/"
	)
	var table []reservedTopic
	for _, prefix := range []string{classic, named} {
		for _, operation := range []string{opGet, opUpdate, opDelete} {
			table = append(table,
				reservedTopic{prefix + operation, input},
				reservedTopic{prefix + operation + "/accepted", output},
				reservedTopic{prefix + operation + "/rejected", output})
		}
		table = append(table,
			reservedTopic{prefix + "update/delta", output},
			reservedTopic{prefix + "update/documents", output})
	}
	table = append(table, provisioningTopics()...)
	return append(table,
		reservedTopic{"$aws/events/#", output},
		reservedTopic{"$aws/things/+/greengrass/#", passed},
		reservedTopic{"$aws/things/+/jobs/#", later},
		reservedTopic{"$aws/things/+/defender/metrics/#", later},
		reservedTopic{"$aws/things/+/streams/#", later},
		reservedTopic{"$aws/things/+/tunnels/notify", later},
		reservedTopic{"$aws/commands/things/+/executions/#", later},
		reservedTopic{"$aws/commands/clients/+/executions/#", later},
		reservedTopic{connectivityPrefix + "+/hello", input},
		reservedTopic{connectivityPrefix + "+/heartbeat", input},
		reservedTopic{connectivityPrefix + "+/goodbye", input},
		reservedTopic{connectivityPrefix + "+/+/accepted", output},
		reservedTopic{connectivityPrefix + "+/+/rejected", output},
		reservedTopic{connectivityPrefix + "+/state", output},
		reservedTopic{"$muster/#", later},
		reservedTopic{"$aws/rules/#", ingest},
	)
}

// rowOf returns the index of the row that a topic name falls under, -1 for
// none.
func rowOf(table []reservedTopic, name string) int {
	for i := range table {
		if topic.Match(table[i].filter, name, topic.AWS) {
			return i
		}
	}
	return -1
}

// Operations on a shadow, the last level of a request's topic.
const (
	opGet    = "get"
	opUpdate = "update"
	opDelete = "delete"
)

// shadowTopic is a parsed request topic.
type shadowTopic struct {
	thing string
	// shadow is empty for the classic shadow.
	shadow    string
	operation string
}

// parseShadowTopic reports false for a name that is no shadow request.
func parseShadowTopic(name string) (shadowTopic, bool) {
	rest, ok := strings.CutPrefix(name, "$aws/things/")
	if !ok {
		return shadowTopic{}, false
	}
	thing, rest, _ := strings.Cut(rest, "/")
	rest, ok = strings.CutPrefix(rest, "shadow/")
	if !ok {
		return shadowTopic{}, false
	}
	t := shadowTopic{thing: thing, operation: rest}
	if after, isNamed := strings.CutPrefix(rest, "name/"); isNamed {
		t.shadow, t.operation, _ = strings.Cut(after, "/")
		if t.shadow == "" {
			return shadowTopic{}, false
		}
	}
	switch t.operation {
	case opGet, opUpdate, opDelete:
		return t, true
	default:
		return shadowTopic{}, false
	}
}

// shadowPrefix returns the topic of a shadow up to the operation.
func shadowPrefix(thing, shadow string) string {
	if shadow == "" {
		return "$aws/things/" + thing + "/shadow/"
	}
	return "$aws/things/" + thing + "/shadow/name/" + shadow + "/"
}
