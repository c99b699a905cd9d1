package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// templateTest tries a template without consequences.
func (c *command) templateTest() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test FILE|TEMPLATE [--param NAME=VALUE]...", Short: "Say what a template would do for a device, without doing it", Args: cobra.ExactArgs(1),
		Long: `Resolves a template for one device and shows the thing, certificate, policies and
device configuration that it would get, and what the account lacks for it. Nothing
is written, no hook is asked and no certificate is signed.

An argument that is a file is a template's body; any other is the name of a stored
template, in the version in force or another --version. Parameters are what the
device would send. What the server reads from its certificate can be given by the
reserved name, such as AWS::IoT::Certificate::CommonName; for the certificate's id
there is a stand-in. A value @FILE is read from the file.

The command ends with code 1 when the device would be refused, so that it can guard
a pipeline. Mistakes are told with line and column.`,
		Example: `  muster template test pumps.json --param Serial=4711
  muster template test pumps --version 3 --param Serial=4711 -o json
  muster template test maker.json --type JITP --param AWS::IoT::Certificate::CommonName=press-7
  muster template test lines.json --type BULK --param Name=pump-1 --param CSR=@pump-1.csr`,
	}
	kind := cmd.Flags().String("type", "", "type of the body: FLEET_PROVISIONING, JITP, or BULK for registration tasks (default FLEET_PROVISIONING)")
	version := cmd.Flags().Int64("version", 0, "version of the stored template (default the one in force)")
	parameters := cmd.Flags().StringArray("param", nil, "NAME=VALUE or NAME=@FILE; may be repeated")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		trial := apiclient.TemplateTrial{Type: *kind, Version: *version}
		source, err := c.trialSource(cmd, &trial, args[0])
		if err != nil {
			return err
		}
		if trial.Parameters, err = readParameters(*parameters); err != nil {
			return err
		}
		found, err := api.TryTemplate(cmd.Context(), trial)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.showTrial(*format, source, &found)
	})
}

// trialSource finds out what an argument means: a body or a stored template.
func (c *command) trialSource(cmd *cobra.Command, trial *apiclient.TemplateTrial, arg string) (source string, err error) {
	info, err := os.Stat(arg)
	isFile := arg == "-" || err == nil && !info.IsDir()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read template body: %w", err)
	case isFile && !cmd.Flags().Changed("version"):
		trial.Body, err = c.readBody(cmd, arg)
		return arg, err
	case strings.ContainsAny(arg, "."+string(filepath.Separator)):
		return "", fmt.Errorf("there is no file %s, and no stored template can have such a name", arg)
	case trial.Type != "":
		return "", mistake(cmd, fmt.Errorf("--type is for bodies in files, and there is no file %s", arg))
	}
	trial.Name = arg
	return arg, nil
}

// maxParameterFile is more than a parameter's value can be.
const maxParameterFile = 64 << 10

// readParameters reads NAME=VALUE and NAME=@FILE.
func readParameters(args []string) (map[string]string, error) {
	parameters, err := parsePairs(args)
	if err != nil {
		return nil, fmt.Errorf("--param %w", err)
	}
	for name, value := range parameters {
		file, ok := strings.CutPrefix(value, "@")
		if !ok {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("--param %s: %w", name, err)
		}
		if info.Size() > maxParameterFile {
			return nil, fmt.Errorf("--param %s: %s is longer than %d bytes", name, file, maxParameterFile)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--param %s: %w", name, err)
		}
		parameters[name] = string(data)
	}
	return parameters, nil
}

// showTrial shows a plan, or fails with the problem.
func (c *command) showTrial(format, source string, r *apiclient.TemplateTrialResult) error {
	if r.Problem == nil || format == formatJSON {
		t := trialTable(r)
		if err := c.print(format, t); err != nil {
			return err
		}
	}
	if p := r.Problem; p != nil {
		return errors.New(problemText(source, p))
	}
	for _, note := range trialNotes(r) {
		if _, err := fmt.Fprintln(c.Err, "note:", printable(note)); err != nil {
			return err //nolint:wrapcheck // standard error says it all
		}
	}
	if r.Refusal != nil {
		return fmt.Errorf("the device would be refused: %s: %s", r.Refusal.Code, printable(r.Refusal.Message))
	}
	return nil
}

// problemText is a problem with its place as editors read it.
func problemText(source string, p *apiclient.TemplateProblem) string {
	text := source
	if p.Line > 0 {
		text += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	text += ": "
	if p.Parameter != "" {
		text += fmt.Sprintf("parameter %s: ", p.Parameter)
	}
	if p.Function != "" && p.Function != "Ref" {
		text += p.Function + ": "
	}
	text += p.Message
	if p.Rule != "" {
		text += " (rule: " + p.Rule + ")"
	}
	return printable(text)
}

// trialNotes are what makes the real thing differ from the trial.
func trialNotes(r *apiclient.TemplateTrialResult) []string {
	var notes []string
	if r.Enabled != nil && !*r.Enabled {
		notes = append(notes, "the template is not enabled: it lets no device in")
	}
	if r.HookNotAsked != "" {
		notes = append(notes, "the hook "+r.HookNotAsked+" was not asked: it may refuse the device or change its parameters")
	}
	if len(r.IgnoredParameters) > 0 {
		notes = append(notes, "the template does not declare "+strings.Join(r.IgnoredParameters, ", "))
	}
	return notes
}

// trialTable shows a plan, a line a part.
func trialTable(r *apiclient.TemplateTrialResult) table {
	t := table{header: []string{"PART", "VALUE", "STATE"}, raw: r}
	if r.Plan == nil {
		return t
	}
	missing := map[string]bool{}
	for _, m := range r.Missing {
		missing[m.Kind+"/"+m.Name] = true
	}
	state := func(kind, name string) string {
		if missing[kind+"/"+name] {
			return "missing"
		}
		return ""
	}
	if thing := r.Plan.Thing; thing != nil {
		// Override settings count only for a thing that is there.
		override := func(part string) string {
			if thing.Exists {
				return thing.OverrideSettings[part]
			}
			return ""
		}
		is := "new"
		if thing.Exists {
			is = "exists"
		}
		t.add("thing", thing.ThingName, is)
		if thing.ThingTypeName != "" {
			t.add("type", thing.ThingTypeName, cmp.Or(state("thingtype", thing.ThingTypeName), override("ThingTypeName")))
		}
		for _, name := range sortedKeys(thing.Attributes) {
			t.add("attribute", name+"="+thing.Attributes[name], override("AttributePayload"))
		}
		for _, group := range thing.ThingGroups {
			t.add("group", group, cmp.Or(state("thinggroup", group), override("ThingGroups")))
		}
		if thing.BillingGroupName != "" {
			t.add("billing group", thing.BillingGroupName, state("billinggroup", thing.BillingGroupName))
		}
	}
	if certificate := r.Plan.Certificate; certificate != nil {
		value := "from " + certificate.Source
		if certificate.CertificateID != "" {
			value = certificate.CertificateID
		}
		if r.StandIns["AWS::IoT::Certificate::Id"] == value {
			value = "the device's"
		}
		t.add("certificate", value, certificate.Status)
	}
	for _, p := range r.Plan.Policies {
		is := "exists"
		if !p.Exists {
			is = cmp.Or(state("policy", p.PolicyName), "new")
		}
		t.add("policy", p.PolicyName, is)
	}
	for _, name := range sortedKeys(r.Plan.DeviceConfiguration) {
		t.add("device configuration", name+"="+r.Plan.DeviceConfiguration[name], "")
	}
	return t
}
