// Package mqttapi is the front end of the reserved topics: what devices and
// tools say to `$aws/…` by MQTT. It decodes a topic, makes one call of a
// domain, and publishes the answer. It decides nothing about policy, which the
// broker has asked before, and nothing about shadows.
//
// Reserved topics of this version, "in" from clients and "out" to them:
//
//	$aws/things/{thing}/shadow[/name/{shadow}]/{get|update|delete}           in
//	$aws/things/{thing}/shadow[…]/{get|update|delete}/{accepted|rejected}    out
//	$aws/things/{thing}/shadow[…]/update/{delta|documents}                   out
//	$aws/events/…                                                            out
//	$muster/connectivity/{thing}/{hello|heartbeat|goodbye}                   in
//	$muster/connectivity/{thing}/{hello|heartbeat|goodbye}/{accepted|rejected}  out
//	$muster/connectivity/{thing}/state                                       out
//	$aws/things/{thing}/greengrass/…        passed on to subscribers, no service
//
// The topics of jobs, provisioning, device metrics, streams, commands, tunnels
// and what else there is of `$muster/…` are known but not offered yet: subscribing is accepted, so
// that devices which subscribe to everything at start stay connected; a
// publish to one of them is refused as to an undefined topic, which ends the
// connection with CLIENT_ERROR, and is logged once for each kind. Basic ingest
// (`$aws/rules/…`) is the same, except that nobody may subscribe to it. A
// publish to an "out" topic is refused likewise.
//
// A will to a shadow topic reaches subscribers and is no shadow request: the
// broker hands over a client's own publishes only. A will to a topic that
// clients may not publish to refuses the CONNECT.
//
// Goroutines: workers that start with the first waiting request and end when
// none waits; Drain waits for them. Requests for one shadow are carried out in
// the order of their arrival, those for different shadows side by side. The
// waiting line is bounded for each thing and as a whole; beyond that a request
// is rejected with code 429.
package mqttapi
