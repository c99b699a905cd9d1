package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// denial is what the text shows of a refusal or of an answer to --try.
type denial struct {
	FirstAt    time.Time `json:"firstAt"`
	LastAt     time.Time `json:"lastAt"`
	Count      int64     `json:"count"`
	Packet     string    `json:"packet"`
	ClientID   string    `json:"clientId"`
	SourceIP   string    `json:"sourceIp"`
	ServerName string    `json:"serverName"`
	Connected  bool      `json:"connected"`
	Principal  struct {
		ID string `json:"id"`
	} `json:"principal"`

	Action    string     `json:"action"`
	Resource  string     `json:"resource"`
	Outcome   string     `json:"outcome"`
	Reason    string     `json:"reason"`
	Thing     string     `json:"thing"`
	Nearest   []nearMiss `json:"nearest"`
	Variables []struct {
		Name   string   `json:"name"`
		Values []string `json:"values"`
	} `json:"variables"`
	Policies []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		From    []struct {
			Kind    string `json:"kind"`
			Name    string `json:"name"`
			Through string `json:"through"`
		} `json:"from"`
	} `json:"policies"`
	Hints []string `json:"hints"`
	Fixes []struct {
		Text      string `json:"text"`
		Statement string `json:"statement"`
		Command   string `json:"command"`
	} `json:"fixes"`
	Incomplete bool `json:"incomplete"`
}

// nearMiss is a statement that came close.
type nearMiss struct {
	Policy          string            `json:"policy"`
	Version         string            `json:"version"`
	Statement       int               `json:"statement"`
	Resource        string            `json:"resource"`
	Resolved        string            `json:"resolved"`
	ResourceMatches bool              `json:"resourceMatches"`
	Excluded        bool              `json:"excluded"`
	Missing         []string          `json:"missing"`
	Wants           string            `json:"wants"`
	Got             string            `json:"got"`
	Hint            string            `json:"hint"`
	Conditions      []failedCondition `json:"conditions"`
}

// failedCondition is one that does not hold.
type failedCondition struct {
	Operator string   `json:"operator"`
	Key      string   `json:"key"`
	Wanted   []string `json:"wanted"`
	Actual   []string `json:"actual"`
}

// explainFlags say what is asked and how it is shown.
type explainFlags struct {
	principal, try string
	json           bool
}

// explain tells why devices were refused.
func (c *command) explain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain [CLIENT [RESOURCE]]", Short: "Say why a device was refused, and what would allow it",
		Long: `Say why a device was refused: the last refusals of its client id, newest first,
each with the statement that decided or the ones that came nearest, the values
of the policy variables, the policies in force, and what would allow it.

The server keeps the last 32 of each client id and of each certificate in
memory, as long as it runs. --try asks what would be decided now, for the
client's live connection or, with --principal, for that certificate.`,
		Example: `  muster explain pump-00001
  muster explain --principal 9b1f…            # by certificate id
  muster explain pump-00001 --try iot:Publish topic/plant/7
  muster explain pump-00001 --try iot:Connect --principal 9b1f…
  muster explain pump-00001 --json`,
		Args: cobra.MaximumNArgs(2),
	}
	var f explainFlags
	cmd.Flags().StringVar(&f.principal, "principal", "", "certificate id: its refusals, or whom --try is about")
	cmd.Flags().StringVar(&f.try, "try", "", "action to decide about now, such as iot:Publish; RESOURCE is topic/…, topicfilter/… or an ARN")
	cmd.Flags().BoolVar(&f.json, "json", false, "the server's answer as it is")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return f.check(args) }
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		request, err := f.request(args)
		if err != nil {
			return err
		}
		answer, err := api.Raw(cmd.Context(), request)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if f.json {
			return c.printJSON(json.RawMessage(answer))
		}
		return c.printExplanation(&f, args, answer)
	})
}

// check refuses combinations that mean nothing.
func (f *explainFlags) check(args []string) error {
	switch {
	case len(args) == 0 && f.principal == "":
		return errors.New("name a client id, or a certificate with --principal")
	case len(args) == 0 && f.try != "":
		return errors.New("--try needs a client id")
	case len(args) == 1 && f.principal != "" && f.try == "":
		return errors.New("give a client id or --principal, not both; with --try both are meant")
	case len(args) == 2 && f.try == "":
		return fmt.Errorf("the resource %q is for --try", args[1])
	}
	return nil
}

// request is the call that answers.
func (f *explainFlags) request(args []string) (apiclient.Request, error) {
	if f.try == "" {
		if len(args) == 0 {
			return opsRequest(http.MethodGet, "principals", f.principal, "denials", nil), nil
		}
		return opsRequest(http.MethodGet, "connections", args[0], "denials", nil), nil
	}
	question := map[string]string{"action": f.try, "certificateId": f.principal}
	if len(args) == 2 {
		question["resource"] = args[1]
	}
	body, err := json.Marshal(question)
	if err != nil {
		return apiclient.Request{}, fmt.Errorf("encode question: %w", err)
	}
	return opsRequest(http.MethodPost, "connections", args[0], "explain", body), nil
}

// opsRequest is a call under /ops/v1. Client ids of dots alone would be taken
// for steps in the path.
func opsRequest(method, family, id, operation string, body []byte) apiclient.Request {
	segment := apiclient.Path(id)
	if strings.Trim(id, ".") == "" {
		segment = "/" + strings.ReplaceAll(id, ".", "%2E")
	}
	return apiclient.Request{
		Service: "iot", Method: method, Body: body,
		Path: apiclient.Path("ops", "v1", family) + segment + apiclient.Path(operation),
	}
}

// printExplanation writes an answer for people.
func (c *command) printExplanation(f *explainFlags, args []string, answer []byte) error {
	var text strings.Builder
	if f.try != "" {
		var d denial
		if err := json.Unmarshal(answer, &d); err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		verdict(&text, &d)
	} else {
		var out struct {
			Denials []denial `json:"denials"`
			Evicted int64    `json:"evicted"`
		}
		if err := json.Unmarshal(answer, &out); err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		for i := range out.Denials {
			if i > 0 {
				text.WriteByte('\n')
			}
			paragraph(&text, &out.Denials[i], c.Now())
		}
		if len(out.Denials) == 0 {
			nothing(&text, append(args, f.principal)[0], out.Evicted)
		}
	}
	if _, err := fmt.Fprint(c.Out, text.String()); err != nil {
		return fmt.Errorf("write explanation: %w", err)
	}
	return nil
}

// nothing says what an empty answer means.
func nothing(w *strings.Builder, who string, evicted int64) {
	line(w, "", "no refusal of %s is kept since the server started", who)
	if evicted > 0 {
		line(w, "", "there may have been some: %d refusals gave way to newer ones", evicted)
	}
	line(w, "", "a device that cannot reach the server or fails in TLS leaves nothing here; see the server's log")
}

// verdict writes the answer to --try.
func verdict(w *strings.Builder, d *denial) {
	word := "would be refused"
	if d.Outcome == "ALLOWED" {
		word = "is allowed"
	}
	line(w, "", "%s on %s %s: %s", d.Action, resourceOf(d), word, d.Reason)
	basis := "not connected: address, server name and the features of its CONNECT are unknown"
	if d.Connected {
		basis = "as it is connected now"
	}
	line(w, "  ", "client %s, %s, %s", d.ClientID, certificate(d), basis)
	details(w, d)
}

// paragraph writes one refusal.
func paragraph(w *strings.Builder, d *denial, now time.Time) {
	times := ""
	if d.Count > 1 {
		times = fmt.Sprintf(", %d times since %s", d.Count, d.FirstAt.UTC().Format(time.RFC3339))
	}
	line(w, "", "%s (%s ago) %s refused: %s on %s%s", d.LastAt.UTC().Format(time.RFC3339), age(now.Sub(d.LastAt)), d.Packet, d.Action, resourceOf(d), times)
	who := certificate(d)
	if d.ClientID != "" {
		who = "client " + d.ClientID + ", " + who
	}
	if d.SourceIP != "" {
		who += ", from " + d.SourceIP
	}
	if d.ServerName != "" {
		who += ", to " + d.ServerName
	}
	line(w, "  ", "%s", who)
	line(w, "  ", "why: %s", d.Reason)
	details(w, d)
}

// resourceOf is the resource in short.
func resourceOf(d *denial) string {
	if parts := strings.SplitN(d.Resource, ":", 6); len(parts) == 6 {
		return parts[5]
	}
	return d.Resource
}

// certificate is who presented itself.
func certificate(d *denial) string {
	who := "no certificate"
	if d.Principal.ID != "" {
		who = "certificate " + d.Principal.ID
	}
	if d.Thing != "" {
		who += ", thing " + d.Thing
	}
	return who
}

// details writes what decided, and last what would help.
func details(w *strings.Builder, d *denial) {
	for i := range d.Nearest {
		line(w, "  ", "near: %s", near(&d.Nearest[i]))
	}
	for _, v := range d.Variables {
		value := "has no value"
		if len(v.Values) > 0 {
			value = "= " + strings.Join(v.Values, ", ")
		}
		line(w, "  ", "with: %s %s", v.Name, value)
	}
	if policies := inForce(d); policies != "" {
		line(w, "  ", "policies: %s", policies)
	}
	for _, hint := range d.Hints {
		line(w, "  ", "note: %s", hint)
	}
	if d.Incomplete {
		line(w, "  ", "note: not explained in full, there were too many; --try tells what is decided now")
	}
	for _, fix := range d.Fixes {
		line(w, "  ", "fix: %s", fix.Text)
		for _, more := range []string{fix.Statement, fix.Command} {
			if more != "" {
				line(w, "       ", "%s", more)
			}
		}
	}
}

// near is one near miss in a line.
func near(n *nearMiss) string {
	var text strings.Builder
	fmt.Fprintf(&text, "statement %d of policy %s version %s ", n.Statement, n.Policy, n.Version)
	switch {
	case n.ResourceMatches:
		text.WriteString("names the resource")
	case n.Excluded:
		text.WriteString("excludes " + n.Resource)
	case len(n.Missing) > 0:
		text.WriteString(n.Resource + ": no value for " + strings.Join(n.Missing, ", "))
	case n.Wants != "" || n.Got != "":
		fmt.Fprintf(&text, "allows %s: %q is not %q", n.Resolved, n.Wants, n.Got)
	default:
		text.WriteString("allows " + n.Resolved)
	}
	for _, c := range n.Conditions {
		fmt.Fprintf(&text, "; its condition %s %s wants %s and gets %s", c.Operator, c.Key, orNothing(c.Wanted), orNothing(c.Actual))
	}
	if n.Hint != "" {
		text.WriteString("; " + n.Hint)
	}
	return text.String()
}

// orNothing writes values.
func orNothing(values []string) string {
	if len(values) == 0 {
		return "nothing"
	}
	return strings.Join(values, ", ")
}

// inForce lists policies with their origin.
func inForce(d *denial) string {
	all := make([]string, 0, len(d.Policies))
	for _, p := range d.Policies {
		from := make([]string, 0, len(p.From))
		for _, f := range p.From {
			switch {
			case f.Kind == "certificate":
				from = append(from, "certificate")
			case f.Through != "":
				from = append(from, "group "+f.Name+" above "+f.Through)
			default:
				from = append(from, f.Kind+" "+f.Name)
			}
		}
		text := p.Name + " version " + p.Version
		if len(from) > 0 {
			text += " (" + strings.Join(from, ", ") + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// age rounds a time ago for people.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	}
	return strconv.Itoa(int(d.Hours())) + " h"
}

// line writes one line; what devices wrote is made harmless.
func line(w *strings.Builder, indent, format string, args ...any) {
	w.WriteString(indent + printable(fmt.Sprintf(format, args...)) + "\n")
}
