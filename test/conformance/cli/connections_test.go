package cli_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestDeleteConnection ends a live connection, where the command line knows how.
func TestDeleteConnection(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "mosquitto_sub")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	_, err := o.try(t.Context(), "iot-data", "delete-connection", "--client-id", "nobody")
	switch {
	case err == nil:
		t.Error("a client that is not there was disconnected")
	case strings.Contains(strings.ToLower(err.Error()), "invalid choice"):
		t.Skip("this AWS command line does not know iot-data delete-connection")
	case !strings.Contains(err.Error(), "ResourceNotFoundException"):
		t.Error(err)
	}
	d := o.newDevice()
	o.must("iot", "create-policy", "--policy-name", "pump", "--policy-document", `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":["iot:Connect","iot:Subscribe"],"Resource":"*"}]}`)
	o.must("iot", "attach-policy", "--policy-name", "pump", "--target", d.certARN)
	sub := d.subscribe("pump-7", "a/b")
	sub.waitFor(t, "SUBACK")
	o.must("iot-data", "delete-connection", "--client-id", "pump-7")
	testkit.Poll(t, 10*time.Second, "the device has to connect again", func() error {
		sub.mu.Lock()
		defer sub.mu.Unlock()
		connects := 0
		for _, line := range sub.lines {
			if strings.Contains(line, "sending CONNECT") {
				connects++
			}
		}
		if connects < 2 {
			return fmt.Errorf("it connected %d times", connects)
		}
		return nil
	})
}
