package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Kinds of assignments.
const (
	kindCertificate = "CERTIFICATE"
	kindClaim       = "CLAIM"
	kindSerial      = "SERIAL"
	kindCA          = "CA"
)

// bootstrap is the family of commands on where devices are sent.
func (c *command) bootstrap() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bootstrap", Short: "Say where devices join that know nothing but the bootstrap address",
		Long: `A device that knows one host name, the setting bootstrap.server-name, and has a
certificate asks there where to join: in which account, at which endpoint, by which
template and with which parameters. Assignments say so. The most specific one
decides: of the certificate, of the serial in its subject, of its CA.

An account sends its own devices to itself. Operators of the default account send
devices that are registered there, or under a CA that is, to any account.`,
		Example: `  muster bootstrap assign --ca-id 5f3c… --account 210000000001 --template pumps
  muster bootstrap import devices.csv
  muster bootstrap try join.example.com:8443 --cert birth.crt --key birth.key`,
	}
	cmd.AddCommand(c.bootstrapAssign(), c.bootstrapList(), c.bootstrapShow(), c.bootstrapUnassign(), c.bootstrapImport(), c.bootstrapTry())
	return cmd
}

// whoFlags say for whom an assignment is.
type whoFlags struct{ cert, certificate, claim, ca, serial string }

// register adds the flags.
func (w *whoFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.cert, "cert", "", "file of the device's certificate, PEM")
	f.StringVar(&w.certificate, "certificate", "", "id of the device's certificate: the SHA-256 of its DER form")
	f.StringVar(&w.claim, "claim", "", "id of a certificate that many devices share")
	f.StringVar(&w.serial, "serial", "", "serial number in the subject of the device's certificate, or its common name; with --ca-id")
	f.StringVar(&w.ca, "ca-id", "", "id of the CA certificate that has signed; without --serial all its devices")
	cmd.MarkFlagsMutuallyExclusive("cert", "certificate", "claim", "ca-id")
	cmd.MarkFlagsMutuallyExclusive("cert", "certificate", "claim", "serial")
}

// who reads them into an assignment.
func (w *whoFlags) who(into *apiclient.BootstrapAssignment) error {
	switch {
	case w.cert != "":
		text, err := os.ReadFile(w.cert)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("%s has no certificate in PEM form", w.cert)
		}
		sum := sha256.Sum256(block.Bytes)
		into.Kind, into.CertificateID = kindCertificate, hex.EncodeToString(sum[:])
	case w.certificate != "":
		into.Kind, into.CertificateID = kindCertificate, w.certificate
	case w.claim != "":
		into.Kind, into.CertificateID = kindClaim, w.claim
	case w.serial != "" && w.ca == "":
		return errors.New("--serial needs --ca-id: a serial counts under the CA that has signed it")
	case w.serial != "":
		into.Kind, into.CACertificateID, into.Serial = kindSerial, w.ca, w.serial
	case w.ca != "":
		into.Kind, into.CACertificateID = kindCA, w.ca
	}
	return nil
}

// bootstrapAssign makes or changes one.
func (c *command) bootstrapAssign() *cobra.Command {
	cmd := &cobra.Command{
		Use: "assign", Short: "Say where a device, or all devices of a CA, join", Args: cobra.NoArgs,
		Long: `Makes an assignment. With --replace it takes the place of the one that is there;
--version refuses that if somebody else has changed it meanwhile.

With --template a device is let in at the endpoint of its account with the
certificate that it has, for that template and for the time of the setting
bootstrap.window, and gets one of its own by fleet provisioning. Without, it goes on
with the certificate that it has, which that account must know, itself or by its CA.

--disable keeps an assignment that says no: a device that it is for is refused, also
if its CA has another one.`,
		Example: `  muster bootstrap assign --ca-id 5f3c… --account 210000000001 --template pumps
  muster bootstrap assign --ca-id 5f3c… --serial B7-0042 --account 210000000001 --template pumps --param Site=leeds --conf ntp=ntp.leeds.example
  muster bootstrap assign --cert birth.crt --template pumps --expires 2026-12-31T00:00:00Z
  muster bootstrap assign --ca-id 5f3c… --serial B7-0013 --disable --note "stolen from the lorry"`,
	}
	var w whoFlags
	w.register(cmd)
	cmd.MarkFlagsOneRequired("cert", "certificate", "claim", "ca-id", "serial")
	f := cmd.Flags()
	var want apiclient.BootstrapAssignment
	f.StringVar(&want.Account, "account", "", "account that they join (default your own)")
	f.StringVar(&want.Template, "template", "", "provisioning template of that account")
	parameters := f.StringArray("param", nil, "NAME=VALUE for the template; may be repeated")
	configuration := f.StringArray("conf", nil, "NAME=VALUE for the device itself; may be repeated")
	f.StringVar(&want.Expires, "expires", "", "time from which it does not hold any more, RFC 3339")
	f.StringVar(&want.Note, "note", "", "why, for those who come after you")
	disable := f.Bool("disable", false, "refuse those whom it is for")
	replace := f.Bool("replace", false, "take the place of an assignment that is there")
	version := f.Int64("version", 0, "with --replace, the version that is replaced; 0 for any")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		err := w.who(&want)
		if err == nil {
			want.Parameters, err = parsePairs(*parameters)
		}
		if err == nil {
			want.Configuration, err = parsePairs(*configuration)
		}
		if err != nil {
			return table{}, err
		}
		if *disable {
			no := false
			want.Enabled = &no
		}
		var made apiclient.BootstrapAssignment
		if *replace {
			made, err = replaceAssignment(cmd.Context(), api, &want, *version)
		} else {
			made, err = api.CreateBootstrapAssignment(cmd.Context(), &want)
		}
		return assignmentsTable([]apiclient.BootstrapAssignment{made}, made), err
	})
}

// replaceAssignment changes the assignment that is for somebody.
func replaceAssignment(ctx context.Context, api *apiclient.Client, want *apiclient.BootstrapAssignment, version int64) (apiclient.BootstrapAssignment, error) {
	found, err := api.BootstrapAssignments(ctx, whoQuery(want), 0)
	if err == nil && len(found) == 0 {
		err = errors.New("there is no assignment to replace; leave --replace out to make one")
	}
	if err != nil {
		return apiclient.BootstrapAssignment{}, err //nolint:wrapcheck // the server's own words
	}
	return api.UpdateBootstrapAssignment(ctx, found[0].ID, want, version) //nolint:wrapcheck // as above
}

// whoQuery asks for the assignment for somebody.
func whoQuery(a *apiclient.BootstrapAssignment) url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"certificateId": a.CertificateID, "caCertificateId": a.CACertificateID, "serial": a.Serial} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

func assignmentsTable(found []apiclient.BootstrapAssignment, raw any) table {
	t := table{header: []string{"ASSIGNMENT", "FOR", "ACCOUNT", "TEMPLATE", "STATE", "VERSION", "LAST ASKED"}, raw: raw}
	for i := range found {
		a := &found[i]
		t.add(a.ID, forWhom(a), a.Account, a.Template, assignmentState(a), strconv.FormatInt(a.Version, 10), a.Asked)
	}
	return t
}

// forWhom names those whom an assignment is for.
func forWhom(a *apiclient.BootstrapAssignment) string {
	switch a.Kind {
	case kindSerial:
		return "serial " + a.Serial
	case kindCA:
		return "all of the CA"
	case kindClaim:
		return "claim"
	}
	return "certificate"
}

// assignmentState is whether devices are sent, as far as time goes by this machine.
func assignmentState(a *apiclient.BootstrapAssignment) string {
	switch {
	case a.Enabled != nil && !*a.Enabled:
		return "disabled"
	case a.Expires != "":
		return "until " + a.Expires
	}
	return "enabled"
}

func (c *command) bootstrapList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List assignments, or the one for somebody", Args: cobra.NoArgs,
		Example: `  muster bootstrap list
  muster bootstrap list --cert birth.crt
  muster bootstrap list --ca-id 5f3c… --serial B7-0042 -o json`,
	}
	var w whoFlags
	w.register(cmd)
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		var probe apiclient.BootstrapAssignment
		if err := w.who(&probe); err != nil {
			return table{}, err
		}
		found, err := api.BootstrapAssignments(cmd.Context(), whoQuery(&probe), *limit)
		return assignmentsTable(found, found), err
	})
}

func (c *command) bootstrapShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ASSIGNMENT", Short: "Show all of one assignment, and who asked about it last", Args: cobra.ExactArgs(1),
		Example: "  muster bootstrap show serial-9c1e…",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		a, err := api.BootstrapAssignment(cmd.Context(), args[0])
		t := table{header: []string{"FIELD", "VALUE"}, raw: a}
		if err != nil {
			return t, err
		}
		for _, row := range [][2]string{
			{"assignment", a.ID},
			{"kind", a.Kind},
			{"certificate", a.CertificateID},
			{"CA certificate", a.CACertificateID},
			{"serial", a.Serial},
			{"account", a.Account},
			{"template", a.Template},
			{"state", assignmentState(&a)},
			{"note", a.Note},
			{"version", strconv.FormatInt(a.Version, 10)},
			{"created", a.Created},
			{"changed", a.Changed},
			{"changed by", a.By},
			{"last asked", a.Asked},
			{"last asked by", a.AskedBy},
			{"last asked from", a.AskedFrom},
		} {
			t.add(row[0], row[1])
		}
		for _, name := range sortedKeys(a.Parameters) {
			t.add("parameter "+name, a.Parameters[name])
		}
		for _, name := range sortedKeys(a.Configuration) {
			t.add("configuration "+name, a.Configuration[name])
		}
		return t, nil
	})
}

func (c *command) bootstrapUnassign() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unassign ASSIGNMENT", Short: "Remove an assignment", Args: cobra.ExactArgs(1),
		Long: `Removes an assignment. A less specific one decides about its devices then, if there
is one; "assign --disable --replace" refuses them instead. Devices that were told
already may provision until their time is over, which the setting bootstrap.window
bounds; to end that at once, deactivate their certificate in the account that they
were sent to.`,
		Example: `  muster bootstrap unassign serial-9c1e…
  muster bootstrap unassign serial-9c1e… --version 3`,
	}
	version := cmd.Flags().Int64("version", 0, "the version that is removed; 0 for any")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return api.DeleteBootstrapAssignment(cmd.Context(), args[0], *version) //nolint:wrapcheck // the server's own words
	})
}

// tryTimeout bounds a try.
const tryTimeout = 30 * time.Second

// maxTried bounds the answer to a try, in bytes.
const maxTried = 1 << 20

// whereTo is what a device is told.
type whereTo struct {
	Account  string `json:"account"`
	Region   string `json:"region"`
	Endpoint string `json:"endpoint"`
	Ports    struct {
		MQTT  int `json:"mqtt,omitempty"`
		HTTPS int `json:"https,omitempty"`
	} `json:"ports"`
	ServerRoots   string            `json:"serverRoots,omitempty"`
	Method        string            `json:"method"`
	Template      string            `json:"templateName,omitempty"`
	Parameters    map[string]string `json:"parameters"`
	Configuration map[string]string `json:"configuration"`
	Approval      struct {
		State     string `json:"state"`
		RequestID string `json:"requestId,omitempty"`
	} `json:"approval"`
	Expires string `json:"expiresAt,omitempty"`
}

// bootstrapTry plays a device.
func (c *command) bootstrapTry() *cobra.Command {
	cmd := &cobra.Command{
		Use: "try HOST[:PORT]", Short: "Ask where to join, as a device with a certificate does", Args: cobra.ExactArgs(1),
		Long: `Asks a bootstrap address by HTTPS with a device's certificate and key, and shows what
the device is told. This counts as the device's own question: it is recorded, it
counts for the rates, and the certificate is let in where the device is sent.

--connect reaches the server at another address than the name, before the name
resolves.`,
		Example: `  muster bootstrap try join.example.com:8443 --cert birth.crt --key birth.key
  muster bootstrap try join.example.com --cert birth.crt --key birth.key --connect 127.0.0.1:8443 -o json`,
	}
	t := c.target(cmd)
	f := cmd.Flags()
	cert := f.String("cert", "", "the device's certificate, PEM")
	key := f.String("key", "", "its key, PEM")
	connect := f.String("connect", "", "HOST:PORT to connect to instead of the name")
	for _, name := range []string{"cert", "key"} {
		_ = cmd.MarkFlagRequired(name) // it is there
	}
	for _, name := range []string{"endpoint-url", "credentials", "profile", "region"} {
		_ = f.MarkHidden(name) // nobody signs
	}
	format := c.outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return fmt.Errorf("load the device's certificate: %w", err)
		}
		where, err := ask(cmd.Context(), args[0], *connect, t.caFile(), &pair)
		if err != nil {
			return err
		}
		return c.print(*format, whereTable(where))
	}
	return cmd
}

// ask asks one bootstrap address.
func ask(ctx context.Context, address, connect, caFile string, pair *tls.Certificate) (*whereTo, error) {
	const httpsPort = "443"
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, httpsPort
	}
	config := &tls.Config{ServerName: host, Certificates: []tls.Certificate{*pair}, MinVersion: tls.VersionTLS12}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", caFile)
		}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	if connect != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, connect)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(host, port)+"/bootstrap", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxTried))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var refused struct {
			ErrorCode    string `json:"errorCode"`
			ErrorMessage string `json:"errorMessage"`
		}
		if json.Unmarshal(text, &refused) != nil || refused.ErrorCode == "" {
			return nil, fmt.Errorf("%s answers %s; is it the setting bootstrap.server-name?", address, response.Status)
		}
		return nil, fmt.Errorf("refused: %s: %s", refused.ErrorCode, refused.ErrorMessage)
	}
	var where whereTo
	if err := json.Unmarshal(text, &where); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &where, nil
}

func whereTable(w *whereTo) table {
	t := table{header: []string{"FIELD", "VALUE"}, raw: w}
	for _, row := range [][2]string{
		{"account", w.Account},
		{"region", w.Region},
		{"endpoint", w.Endpoint},
		{"MQTT port", strconv.Itoa(w.Ports.MQTT)},
		{"HTTPS port", strconv.Itoa(w.Ports.HTTPS)},
		{"method", w.Method},
		{"template", w.Template},
		{"approval", strings.TrimSpace(w.Approval.State + " " + w.Approval.RequestID)},
		{"good until", w.Expires},
	} {
		t.add(row[0], row[1])
	}
	for _, name := range slices.Sorted(maps.Keys(w.Parameters)) {
		t.add("parameter "+name, w.Parameters[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.Configuration)) {
		t.add("configuration "+name, w.Configuration[name])
	}
	return t
}
