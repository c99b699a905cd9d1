// Package sim is a fleet of simulated devices. Each exchanges the claim that all
// have for a certificate of a key of its own, connects over mutual TLS, keeps a
// shadow, drains and charges a battery, obeys what is desired, and sometimes drops
// off. It uses the public interfaces only: REST for what an operator does, MQTT to
// join and to live.
//
// What a device does is drawn from a generator seeded per device, so two runs
// with one seed behave alike; only the network's timing differs. Fleet.Run
// starts one goroutine for each device and ends when all have.
package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Names of what a simulated fleet registers.
const (
	typeName   = "SimulatedPump"
	policyName = "simulated-device"
	// templateName is the provisioning template, claimPolicyName the policy of the
	// claim.
	templateName    = "simulated-pumps"
	claimPolicyName = "simulated-claim"
	rootGroup       = "sites"
	// OperatorPolicy is for the certificate that EnsureOperator makes.
	OperatorPolicy = "demo-operator"
)

// maxDevices bounds one process; a client costs about 60 kB.
const maxDevices = 100_000

// Options of New.
type Options struct {
	// API registers the fleet.
	API *apiclient.Client
	// Broker is HOST:PORT of MQTT over mutual TLS.
	Broker string
	// CAFile holds the authorities of the broker's certificate.
	CAFile string
	// StateDir keeps the devices' keys and certificates, so that the next
	// run continues with the same devices.
	StateDir string
	// Prefix begins each device's name.
	Prefix string
	// Devices and Sites are how many.
	Devices, Sites int
	// Seed makes the run repeatable.
	Seed uint64
	// Rate is how many devices connect per second while the fleet ramps up.
	Rate float64
	// Interval is how often a device reports unless its shadow says otherwise.
	Interval time.Duration
	// Session is how long a device stays connected on average before it
	// drops off for a while; 0 means for ever.
	Session time.Duration
	// Progress is told how far a stage has come; nil for nobody.
	Progress func(stage string, done, total int)
	Logger   *slog.Logger
}

// check names the first option that cannot be.
func (o *Options) check() error {
	switch {
	case o.API == nil:
		return errors.New("no API client")
	case o.Devices < 1 || o.Devices > maxDevices:
		return fmt.Errorf("devices must be 1 to %d", maxDevices)
	case o.Sites < 1 || o.Sites > o.Devices:
		return errors.New("sites must be at least 1 and at most the number of devices")
	case o.Rate <= 0:
		return errors.New("rate must be greater than 0")
	case o.Interval < minInterval || o.Interval > maxInterval:
		return fmt.Errorf("interval must be %v to %v", minInterval, maxInterval)
	case o.Session < 0:
		return errors.New("session must not be negative")
	case o.Prefix == "" || o.StateDir == "" || o.Broker == "":
		return errors.New("prefix, state folder and broker must be set")
	}
	return nil
}

// progress reports to whom it concerns.
func (o *Options) progress(stage string, done, total int) {
	if o.Progress != nil {
		o.Progress(stage, done, total)
	}
}

// deviceName numbers devices from 1, so that names sort.
func deviceName(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i+1) }

// siteName is the group of one site.
func siteName(i int) string {
	towns := []string{"leeds", "bergen", "turin", "gdansk", "porto", "tampere", "ghent", "split"}
	name := towns[i%len(towns)]
	if round := i / len(towns); round > 0 {
		name = fmt.Sprintf("%s-%d", name, round+1)
	}
	return name
}
