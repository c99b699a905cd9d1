// Package mqttseq plays recorded MQTT packet sequences against the broker: the
// test data of another broker, which is not part of this repository. The tests
// look for it in ../shared/mqtt-sequences beside the repository, or where
// MUSTER_MQTT_SEQUENCES points, and skip when it is not there.
package mqttseq
