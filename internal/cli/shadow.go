package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// shadow is the family of shadow commands.
func (c *command) shadow() *cobra.Command {
	cmd := &cobra.Command{Use: "shadow", Short: "Read and change device shadows"}
	cmd.AddCommand(c.shadowGet(), c.shadowUpdate(), c.shadowHistory(), c.shadowDiff(), c.shadowRestore(), c.shadowDrift())
	return cmd
}

// nameFlag registers --name.
func nameFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("name", "", "named shadow (default the classic one)")
}

// shadowGet prints a shadow.
func (c *command) shadowGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get THING", Short: "Print a shadow document as JSON", Args: cobra.ExactArgs(1),
		Example: `  muster shadow get pump-00001
  muster shadow get pump-00001 --name firmware`,
	}
	name := nameFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		document, err := api.GetShadow(cmd.Context(), args[0], *name)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.printJSON(json.RawMessage(document))
	})
}

// shadowUpdate changes a shadow.
func (c *command) shadowUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update THING", Short: "Change a shadow", Args: cobra.ExactArgs(1),
		Long: "Change a shadow and print what was accepted. Values are JSON; null removes.\nWith --desired the device is told the difference at once when it is connected.",
		Example: `  muster shadow update pump-00001 --desired '{"led":"on"}'
  muster shadow update pump-00001 --desired '{"reportIntervalSeconds":2}'
  muster shadow update pump-00001 --reported '{"battery":null}' --version 41`,
	}
	name := nameFlag(cmd)
	desired := cmd.Flags().String("desired", "", "JSON object to merge into desired")
	reported := cmd.Flags().String("reported", "", "JSON object to merge into reported")
	version := cmd.Flags().Int64("version", 0, "change only this version; 0 for any")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		body, err := updateBody(*desired, *reported, *version)
		if err != nil {
			return err
		}
		accepted, err := api.UpdateShadow(cmd.Context(), args[0], *name, body)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.printJSON(json.RawMessage(accepted))
	})
}

// updateBody makes the request of a shadow update.
func updateBody(desired, reported string, version int64) ([]byte, error) {
	state := map[string]json.RawMessage{}
	for name, text := range map[string]string{"desired": desired, "reported": reported} {
		if text == "" {
			continue
		}
		if !json.Valid([]byte(text)) {
			return nil, fmt.Errorf("--%s is not JSON: %s", name, text)
		}
		state[name] = json.RawMessage(text)
	}
	if len(state) == 0 {
		return nil, errors.New("give --desired or --reported")
	}
	body := map[string]any{"state": state}
	if version != 0 {
		body["version"] = version
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode update: %w", err)
	}
	return data, nil
}
