//go:build bench

package peers_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/muster-iot/muster/internal/index"
)

// device is one of a made-up fleet, with 35 fields that can be searched beside
// the times of its shadow's members.
type device struct {
	Name       string            `json:"thingName"`
	ID         string            `json:"thingId"`
	Type       string            `json:"thingTypeName"`
	Groups     []string          `json:"thingGroupNames"`
	Attributes map[string]string `json:"attributes"`
	Shadow     struct {
		Reported reported `json:"reported"`
		Desired  desired  `json:"desired"`
	} `json:"shadow"`
	Connectivity connectivity `json:"connectivity"`
}

// reported is what the device says of itself.
type reported struct {
	Battery  int     `json:"battery"`
	Temp     float64 `json:"temp"`
	RSSI     int     `json:"rssi"`
	Uptime   int     `json:"uptime"`
	CPU      int     `json:"cpu"`
	Memory   int     `json:"memory"`
	Disk     int     `json:"disk"`
	Voltage  float64 `json:"voltage"`
	Errors   int     `json:"errors"`
	Restarts int     `json:"restarts"`
	Firmware string  `json:"firmware"`
	Mode     string  `json:"mode"`
	IP       string  `json:"ip"`
	Network  string  `json:"network"`
	Door     bool    `json:"door"`
	Position string  `json:"position"`
	lat, lon float64
}

// desired is what it should become.
type desired struct {
	Firmware string `json:"firmware"`
	Mode     string `json:"mode"`
	Interval int    `json:"interval"`
}

// connectivity is the state of its connection.
type connectivity struct {
	Connected bool   `json:"connected"`
	Timestamp int64  `json:"timestamp"`
	Reason    string `json:"disconnectReason,omitempty"`
}

const (
	sites, customers, groups = 5000, 2000, 2000
	epoch                    = 1_790_000_000
)

// newDevice makes the i-th device; the same random numbers make the same fleet.
func newDevice(r *rand.Rand, i int) *device {
	// Few versions are what most devices run.
	firmware := int(math.Abs(r.NormFloat64()) * 18)
	version := fmt.Sprintf("3.%d.%d", firmware%120/30, firmware%30)
	d := &device{
		Name: fmt.Sprintf("device-%07d", i), ID: fmt.Sprintf("%016x-%016x", r.Uint64(), r.Uint64()), Type: fmt.Sprintf("Type%d", r.IntN(20)),
		Attributes: map[string]string{
			"serial": fmt.Sprintf("SN%012d", r.Uint64N(1e12)), "site": fmt.Sprintf("site-%d", r.IntN(sites)),
			"customer": fmt.Sprintf("cust-%d", r.IntN(customers)), "manufacturer": fmt.Sprintf("maker-%d", r.IntN(40)),
			"model": fmt.Sprintf("m%d", r.IntN(200)), "hw": fmt.Sprintf("r%d", r.IntN(6)), "region": fmt.Sprintf("region-%d", r.IntN(12)),
			"batch": fmt.Sprintf("b%d", r.IntN(3000)),
		},
	}
	for range 1 + r.IntN(3) {
		d.Groups = append(d.Groups, fmt.Sprintf("group-%d", r.IntN(groups)))
	}
	lat, lon := 35+r.Float64()*30, -10+r.Float64()*40
	d.Shadow.Reported = reported{
		Battery: r.IntN(101), Temp: float64(r.IntN(600)) / 10, RSSI: -r.IntN(100), Uptime: r.IntN(1e7), CPU: r.IntN(101), Memory: r.IntN(101),
		Disk: r.IntN(101), Voltage: 3 + float64(r.IntN(100))/100, Errors: r.IntN(50), Restarts: r.IntN(20), Firmware: version,
		Mode: []string{"eco", "normal", "boost"}[r.IntN(3)], IP: fmt.Sprintf("10.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)),
		Network: []string{"lte", "wifi", "ethernet"}[r.IntN(3)], Door: r.IntN(10) == 0, Position: fmt.Sprintf("%.5f, %.5f", lat, lon), lat: lat, lon: lon,
	}
	d.Shadow.Desired = desired{Firmware: version, Mode: d.Shadow.Reported.Mode, Interval: 60}
	d.Connectivity = connectivity{Connected: r.IntN(100) < 85, Timestamp: int64(epoch+i) * 1000}
	if !d.Connectivity.Connected {
		d.Connectivity.Reason = []string{"CONNECTION_LOST", "MQTT_KEEP_ALIVE_TIMEOUT", "CLIENT_INITIATED_DISCONNECT"}[r.IntN(3)]
	}
	return d
}

// parts are the device as the registry, its shadow and its connection give it
// to the index.
func (d *device) parts() (index.Thing, []string, index.State) {
	reported, _ := json.Marshal(d.Shadow.Reported)
	wanted, _ := json.Marshal(d.Shadow.Desired)
	stamp := fmt.Sprintf(`{"timestamp":%d}`, d.Connectivity.Timestamp/1000)
	stamps := func(names string) string {
		var out []string
		for name := range strings.FieldsSeq(names) {
			out = append(out, `"`+name+`":`+stamp)
		}
		return "{" + strings.Join(out, ",") + "}"
	}
	return index.Thing{Name: d.Name, ID: d.ID, TypeName: d.Type, Attributes: d.Attributes, Version: 1}, d.Groups, index.State{
		Shadows: []index.Shadow{{
			Version: 3, Reported: reported, Desired: wanted,
			Metadata: []byte(`{"reported":` +
				stamps("battery temp rssi uptime cpu memory disk voltage errors restarts firmware mode ip network door position") +
				`,"desired":` + stamps("firmware mode interval") + `}`),
		}},
		Connectivity: &index.Connectivity{
			Connected: d.Connectivity.Connected, TimestampMS: d.Connectivity.Timestamp, Version: 1, Reason: d.Connectivity.Reason,
		},
	}
}

// question is one fleet query in the language of each engine.
type question struct {
	name, muster string
	// where is PostgreSQL's condition; bleve is built in its own file.
	where string
}

// questions ask what operators ask, from one device to many.
func questions() []question {
	return []question{
		{"one name", "thingName:device-0054321", `name = 'device-0054321'`},
		{
			"connected, type, maker", "connectivity.connected:true AND thingTypeName:Type7 AND attributes.manufacturer:maker-3",
			`doc @> '{"connectivity":{"connected":true},"thingTypeName":"Type7","attributes":{"manufacturer":"maker-3"}}'`,
		},
		{
			"battery and version prefix", "shadow.reported.battery>=90 AND shadow.reported.firmware:3.1.*",
			`(doc #>> '{shadow,reported,battery}')::float8 >= 90 AND (doc #>> '{shadow,reported,firmware}') LIKE '3.1.%'`,
		},
		{
			"two versions, not a group, offline, weak", "(shadow.reported.firmware:3.0.1 OR shadow.reported.firmware:3.0.2) AND NOT thingGroupNames:group-7" +
				" AND connectivity.connected:false AND shadow.reported.rssi<=-50",
			`(doc @> '{"shadow":{"reported":{"firmware":"3.0.1"}}}' OR doc @> '{"shadow":{"reported":{"firmware":"3.0.2"}}}')
			 AND NOT doc @> '{"thingGroupNames":["group-7"]}' AND doc @> '{"connectivity":{"connected":false}}'
			 AND (doc #>> '{shadow,reported,rssi}')::float8 <= -50`,
		},
		{
			"within 50 km, offline", "shadow.reported.position:geo_distance,52.52,13.40,50km AND connectivity.connected:false",
			`place <@ box(point(13.40 - 0.739, 52.52 - 0.4497), point(13.40 + 0.739, 52.52 + 0.4497))
			 AND 12742 * asin(sqrt(sin(radians(place[1] - 52.52) / 2) ^ 2 + cos(radians(52.52)) * cos(radians(place[1])) * sin(radians(place[0] - 13.40) / 2) ^ 2)) <= 50
			 AND doc @> '{"connectivity":{"connected":false}}'`,
		},
		{
			"name prefix and battery", "thingName:device-005* AND shadow.reported.battery:[20 TO 40]",
			`name LIKE 'device-005%' AND (doc #>> '{shadow,reported,battery}')::float8 BETWEEN 20 AND 40`,
		},
		{"end of a name", "thingName:*4321", `name LIKE '%4321'`},
		{"battery", "shadow.reported.battery>=90", `(doc #>> '{shadow,reported,battery}')::float8 >= 90`},
	}
}
