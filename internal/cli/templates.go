package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// templates is the family of commands on provisioning templates.
func (c *command) templates() *cobra.Command {
	cmd := &cobra.Command{
		Use: "template", Short: "Create, change, test and delete provisioning templates",
		Long: `A provisioning template says what a device gets when it joins: a thing with type,
attributes and groups, a certificate, policies, and what the device is told.
Templates of type FLEET_PROVISIONING are for devices that come with a claim,
those of type JITP for devices whose certificate an authority has signed.`,
	}
	cmd.AddCommand(c.templateList(), c.templateShow(), c.templateCreate(), c.templateUpdate(), c.templateDelete(),
		c.templateVersions(), c.templateDeleteVersion(), c.templateTest())
	return cmd
}

// templateList lists templates.
func (c *command) templateList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List provisioning templates by name", Args: cobra.NoArgs,
		Example: `  muster template list
  muster template list -o csv`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ListTemplates(cmd.Context(), *limit)
		t := table{header: []string{"TEMPLATE", "TYPE", "ENABLED", "CREATED", "MODIFIED", "DESCRIPTION"}, raw: found}
		for i := range found {
			e := &found[i]
			t.add(e.Name, e.Type, strconv.FormatBool(e.Enabled), seconds(e.Created), seconds(e.Modified), e.Description)
		}
		return t, err
	})
}

// templateTable shows one template.
func templateTable(e *apiclient.Template) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: e}
	hook := ""
	if e.Hook != nil {
		hook = e.Hook.TargetARN
	}
	for _, row := range [][2]string{
		{"template", e.Name},
		{"arn", e.ARN},
		{"type", e.Type},
		{"enabled", strconv.FormatBool(e.Enabled)},
		{"description", e.Description},
		{"version in force", strconv.FormatInt(e.DefaultVersion, 10)},
		{"hook", hook},
		{"role", e.RoleARN},
		{"created", seconds(e.Created)},
		{"modified", seconds(e.Modified)},
	} {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	return t
}

// templateShow shows one template or the body of one of its versions.
func (c *command) templateShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show TEMPLATE", Short: "Show a provisioning template, or the body of one of its versions", Args: cobra.ExactArgs(1),
		Example: `  muster template show pumps
  muster template show pumps --body >pumps.json
  muster template show pumps --version 2 --body
  muster template show pumps -o json`,
	}
	version := cmd.Flags().Int64("version", 0, "version to show (default the one in force)")
	body := cmd.Flags().Bool("body", false, "print the body alone, as it was stored")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if *body && *format != formatTable {
			return mistake(cmd, errors.New("--body prints the body as it is, in no other format"))
		}
		t, text, err := showTemplate(cmd.Context(), api, args[0], *version)
		if err != nil {
			return err
		}
		if !*body {
			return c.print(*format, t)
		}
		_, err = fmt.Fprintln(c.Out, strings.TrimSuffix(text, "\n"))
		return err //nolint:wrapcheck // standard output says it all
	})
}

// showTemplate reads a template, or one of its versions unless version is 0.
func showTemplate(ctx context.Context, api *apiclient.Client, name string, version int64) (t table, body string, err error) {
	if version == 0 {
		found, err := api.DescribeTemplate(ctx, name)
		return templateTable(&found), found.Body, err //nolint:wrapcheck // the server's own words
	}
	found, err := api.DescribeTemplateVersion(ctx, name, version)
	t = versionsTable([]apiclient.TemplateVersion{found})
	t.raw = found
	return t, found.Body, err //nolint:wrapcheck // the server's own words
}

// readBody reads a template's body from a file; "-" is standard input.
func (c *command) readBody(cmd *cobra.Command, file string) (string, error) {
	if file == "-" {
		data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxBodyFile+1))
		return bodyOf(data, "standard input", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read template body: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxBodyFile+1))
	return bodyOf(data, file, err)
}

// maxBodyFile is more than any server takes, and less than a mistaken file.
const maxBodyFile = 64 << 10

// bodyOf refuses what no server would understand.
func bodyOf(data []byte, file string, err error) (string, error) {
	switch {
	case err != nil:
		return "", fmt.Errorf("read template body: %w", err)
	case len(data) == 0:
		return "", fmt.Errorf("%s is empty", file)
	case len(data) > maxBodyFile:
		return "", fmt.Errorf("%s is longer than %d bytes: no template body is", file, maxBodyFile)
	}
	return string(data), nil
}

// roleHelp says why there is a role.
const roleHelp = "ARN of the provisioning role; Muster keeps it and never assumes it (default role/provisioning of the account)"

// roleOr is the role that is named, or one of the caller's account: the wire
// wants one, and nothing depends on it.
func roleOr(ctx context.Context, api *apiclient.Client, role string) (string, error) {
	if role != "" {
		return role, nil
	}
	account, err := api.CallerAccount(ctx)
	if err != nil {
		return "", fmt.Errorf("find the account for --role: %w", err)
	}
	return "arn:aws:iam::" + account + ":role/provisioning", nil
}

// templateCreate makes a template.
func (c *command) templateCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create TEMPLATE --body FILE", Short: "Create a provisioning template with version 1 in force", Args: cobra.ExactArgs(1),
		Long: `Creates a provisioning template. Devices are let in by it once it is enabled.

The hook is a function of the server's setting function.target, named by itself
or by an ARN that ends in function:NAME; it is asked before each device and may
refuse. Templates of type JITP have none.`,
		Example: `  muster template create pumps --body pumps.json --enable
  muster template create pumps --body pumps.json --hook arn:aws:lambda:local:000000000000:function:gate
  muster template create maker --body maker.json --type JITP --enable --description "devices of Acme"`,
	}
	var t apiclient.TemplateCreation
	file := cmd.Flags().String("body", "", "file with the body; - is standard input")
	cmd.Flags().StringVar(&t.Type, "type", "", "FLEET_PROVISIONING or JITP (default FLEET_PROVISIONING)")
	cmd.Flags().StringVar(&t.RoleARN, "role", "", roleHelp)
	cmd.Flags().BoolVar(&t.Enabled, "enable", false, "let devices in at once")
	hook := cmd.Flags().String("hook", "", "ARN or name of the function that is asked before a device is let in")
	cmd.Flags().StringVar(&t.Description, "description", "", "what the template is for")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if *file == "" {
			return table{}, mistake(cmd, errors.New("--body is missing"))
		}
		var err error
		if t.Body, err = c.readBody(cmd, *file); err != nil {
			return table{}, err
		}
		if t.RoleARN, err = roleOr(cmd.Context(), api, t.RoleARN); err != nil {
			return table{}, err
		}
		t.Name = args[0]
		if *hook != "" {
			t.Hook = &apiclient.Hook{TargetARN: *hook}
		}
		if err := api.CreateTemplate(cmd.Context(), t); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		made, err := api.DescribeTemplate(cmd.Context(), t.Name)
		return templateTable(&made), err //nolint:wrapcheck // as above
	})
}

// templateChange are the flags of templateUpdate.
type templateChange struct {
	file, role, hook, description            string
	makeDefault, enable, disable, removeHook bool
	version                                  int64
}

// check refuses flags that contradict each other or change nothing.
func (t *templateChange) check(cmd *cobra.Command) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	for _, name := range []string{"body", "hook", "role"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return mistake(cmd, fmt.Errorf("--%s is empty", name))
		}
	}
	switch {
	case t.enable && t.disable:
		return mistake(cmd, errors.New("--enable and --disable exclude each other"))
	case t.hook != "" && t.removeHook:
		return mistake(cmd, errors.New("--hook and --no-hook exclude each other"))
	case t.makeDefault && t.file == "":
		return mistake(cmd, errors.New("--default puts the new version of --body in force; for another one there is --default-version"))
	case t.makeDefault && given("default-version"):
		return mistake(cmd, errors.New("--default and --default-version exclude each other"))
	case t.file == "" && !t.enable && !t.disable && t.hook == "" && !t.removeHook && t.role == "" && !given("description") && !given("default-version"):
		return mistake(cmd, errors.New("say what to change: --body FILE, --enable, --hook ARN or the like"))
	}
	return nil
}

// update is what the flags ask for beside a new version, and whether that is
// anything.
func (t *templateChange) update(cmd *cobra.Command) (u apiclient.TemplateUpdate, some bool) {
	if t.enable || t.disable {
		u.Enabled, some = &t.enable, true
	}
	if t.hook != "" {
		u.Hook, some = &apiclient.Hook{TargetARN: t.hook}, true
	}
	if t.removeHook {
		u.RemoveHook, some = true, true
	}
	if t.role != "" {
		u.RoleARN, some = &t.role, true
	}
	if cmd.Flags().Changed("description") {
		u.Description, some = &t.description, true
	}
	if cmd.Flags().Changed("default-version") {
		u.DefaultVersion, some = &t.version, true
	}
	return u, some
}

// templateUpdate changes a template.
func (c *command) templateUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update TEMPLATE", Short: "Change a provisioning template, or add a version to it", Args: cobra.ExactArgs(1),
		Long: `Changes a provisioning template. --body adds a version, which is in force only
with --default: devices that are joining go by the version in force. A template
has five versions at most; muster template delete-version makes room.`,
		Example: `  muster template update pumps --enable
  muster template update pumps --body pumps.json --default
  muster template update pumps --default-version 2
  muster template update pumps --no-hook --description "open to all claims"`,
	}
	var t templateChange
	f := cmd.Flags()
	f.StringVar(&t.file, "body", "", "file with the body of a new version; - is standard input")
	f.BoolVar(&t.makeDefault, "default", false, "put the new version in force")
	f.Int64Var(&t.version, "default-version", 0, "put this version in force")
	f.BoolVar(&t.enable, "enable", false, "let devices in")
	f.BoolVar(&t.disable, "disable", false, "let no devices in")
	f.StringVar(&t.hook, "hook", "", "ARN or name of the function that is asked before a device is let in")
	f.BoolVar(&t.removeHook, "no-hook", false, "ask nobody any more")
	f.StringVar(&t.role, "role", "", "ARN of the provisioning role; Muster keeps it and never assumes it")
	f.StringVar(&t.description, "description", "", "what the template is for")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := t.check(cmd); err != nil {
			return table{}, err
		}
		added := ""
		if t.file != "" {
			body, err := c.readBody(cmd, t.file)
			if err != nil {
				return table{}, err
			}
			id, err := api.CreateTemplateVersion(cmd.Context(), args[0], body, t.makeDefault)
			if err != nil {
				return table{}, err //nolint:wrapcheck // the server's own words
			}
			added = strconv.FormatInt(id, 10)
			if _, err := fmt.Fprintf(c.Err, "added version %s\n", added); err != nil {
				return table{}, err //nolint:wrapcheck // standard error says it all
			}
		}
		if u, some := t.update(cmd); some {
			if err := api.UpdateTemplate(cmd.Context(), args[0], u); err != nil {
				if added != "" {
					return table{}, fmt.Errorf("version %s is added, the rest is not changed: %w", added, err)
				}
				return table{}, err //nolint:wrapcheck // the server's own words
			}
		}
		now, err := api.DescribeTemplate(cmd.Context(), args[0])
		return templateTable(&now), err //nolint:wrapcheck // as above
	})
}

// templateDelete removes a template.
func (c *command) templateDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete TEMPLATE", Short: "Delete a provisioning template with all its versions", Args: cobra.ExactArgs(1),
		Long: `Deletes a provisioning template with all its versions. Things and certificates
that it made stay; devices that still name it, or whose CA certificate does, are
refused from then on.`,
		Example: `  muster template delete pumps
  muster template delete pumps --yes`,
	}
	yes := yesFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := c.confirmed(cmd, *yes, "template", args[0]); err != nil {
			return err
		}
		if err := api.DeleteTemplate(cmd.Context(), args[0]); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err := fmt.Fprintln(c.Out, "deleted", args[0])
		return err //nolint:wrapcheck // standard output says it all
	})
}

// versionsTable shows versions.
func versionsTable(versions []apiclient.TemplateVersion) table {
	t := table{header: []string{"VERSION", "IN FORCE", "CREATED"}, raw: versions}
	for i := range versions {
		v := &versions[i]
		t.add(strconv.FormatInt(v.ID, 10), strconv.FormatBool(v.Default), seconds(v.Created))
	}
	return t
}

// templateVersions lists the versions of a template.
func (c *command) templateVersions() *cobra.Command {
	cmd := &cobra.Command{
		Use: "versions TEMPLATE", Short: "List the versions of a provisioning template, the newest first", Args: cobra.ExactArgs(1),
		Example: "  muster template versions pumps",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		found, err := api.ListTemplateVersions(cmd.Context(), args[0], *limit)
		return versionsTable(found), err //nolint:wrapcheck // the server's own words
	})
}

// templateDeleteVersion removes a version.
func (c *command) templateDeleteVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete-version TEMPLATE VERSION", Short: "Delete a version of a provisioning template that is not in force", Args: cobra.ExactArgs(2),
		Example: "  muster template delete-version pumps 2",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		version, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil || version < 1 {
			return mistake(cmd, fmt.Errorf("%q is no number of a version", args[1]))
		}
		if err := api.DeleteTemplateVersion(cmd.Context(), args[0], version); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err = fmt.Fprintf(c.Out, "deleted version %d of %s\n", version, args[0])
		return err //nolint:wrapcheck // standard output says it all
	})
}
