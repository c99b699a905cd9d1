package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// policyFinding is one finding of the server's.
type policyFinding struct {
	// Source is the file, or the policy with its version.
	Source    string `json:"source"`
	Code      string `json:"code"`
	Severity  string `json:"severity"`
	Statement *int   `json:"statement,omitempty"`
	Sid       string `json:"sid,omitempty"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	Message   string `json:"message"`
}

// lintQuestion is what the server is asked.
type lintQuestion struct {
	Document   string `json:"document,omitempty"`
	PolicyName string `json:"policyName,omitempty"`
	VersionID  string `json:"versionId,omitempty"`
}

// policy is the family of commands on device policies.
func (c *command) policy() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Look for mistakes in device policies"}
	cmd.AddCommand(c.policyLint())
	return cmd
}

// policyLint has policies looked at.
func (c *command) policyLint() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lint [FILE]...", Short: "Say what policies do not do, or do beyond their device",
		Long: `Say what device policies do not do, or do beyond the device they are for.

Files need not be stored. Findings are errors for parts that can have no effect,
warnings for what was probably not meant, and info for what is worth knowing.
The command ends with code 1 when there is an error, so that it can guard a
pipeline. Lines and columns are those of the document as it is stored.`,
		Example: `  muster policy lint pump.json
  muster policy lint --name pump-device        # the version in force
  muster policy lint --name pump-device:3
  muster policy lint --all -o json`,
	}
	names := cmd.Flags().StringSlice("name", nil, "stored policy, with :VERSION for another than the one in force")
	all := cmd.Flags().Bool("all", false, "all stored policies, in the versions in force")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if *all == (len(args)+len(*names) > 0) {
			return errors.New("name files, or policies with --name, or give --all")
		}
		stored := *names
		if *all {
			var err error
			if stored, err = api.ListPolicies(cmd.Context(), 0); err != nil {
				return err //nolint:wrapcheck // the server's own words
			}
		}
		found, err := lintAll(cmd.Context(), api, args, stored)
		if err != nil {
			return err
		}
		if err := c.print(*format, findingsTable(found)); err != nil {
			return err
		}
		return countErrors(found)
	})
}

// lintAll asks about files and stored policies, one after the other.
func lintAll(ctx context.Context, api *apiclient.Client, files, stored []string) ([]policyFinding, error) {
	found := []policyFinding{}
	for _, file := range files {
		document, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		if len(document) == 0 {
			return nil, fmt.Errorf("%s is empty", file)
		}
		if found, err = lintOne(ctx, api, found, file, lintQuestion{Document: string(document)}); err != nil {
			return nil, err
		}
	}
	for _, each := range stored {
		name, version, _ := strings.Cut(each, ":")
		var err error
		if found, err = lintOne(ctx, api, found, name, lintQuestion{PolicyName: name, VersionID: version}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// lintOne adds the findings about one document.
func lintOne(ctx context.Context, api *apiclient.Client, found []policyFinding, source string, q lintQuestion) ([]policyFinding, error) {
	var answer struct {
		VersionID string          `json:"versionId"`
		Findings  []policyFinding `json:"findings"`
	}
	request := apiclient.Request{Service: "iot", Method: http.MethodPost, Path: apiclient.Path("ops", "v1", "policies", "lint")}
	if err := api.JSON(ctx, request, q, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	if answer.VersionID != "" {
		source += ":" + answer.VersionID
	}
	for _, f := range answer.Findings {
		f.Source = source
		found = append(found, f)
	}
	return found, nil
}

// findingsTable shows findings with the place as editors read it.
func findingsTable(found []policyFinding) table {
	t := table{header: []string{"PLACE", "SEVERITY", "CODE", "FINDING"}, raw: found}
	for _, f := range found {
		t.add(fmt.Sprintf("%s:%d:%d", f.Source, f.Line, f.Column), f.Severity, f.Code, f.Message)
	}
	return t
}

// countErrors makes findings that are errors the command's failure.
func countErrors(found []policyFinding) error {
	count := 0
	for _, f := range found {
		if f.Severity == "error" {
			count++
		}
	}
	switch count {
	case 0:
		return nil
	case 1:
		return errors.New("1 error found")
	}
	return fmt.Errorf("%d errors found", count)
}
