package cli

import (
	"errors"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// signedIn is the answer to a sign-in.
type signedIn struct {
	Account         string    `json:"account"`
	ARN             string    `json:"arn"`
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken"`
	Expiration      time.Time `json:"expiration"`
	// PasswordChangeRequired is set when there is no session without a new
	// password.
	PasswordChangeRequired bool `json:"passwordChangeRequired"`
}

// processCredentials is what the AWS tools take from a credential_process.
type processCredentials struct {
	Version         int
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
}

// errMustChange is a first sign-in.
var errMustChange = errors.New("the password must be changed: give a new one with --new-password-file")

// signIn gets the credentials of a session for a user with a password.
func (c *command) signIn() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sign-in USER", Short: "Get the credentials of a short session by password", Args: cobra.ExactArgs(1),
		Long: `Sign in with a password, which is read from standard input or a file, and print
the credentials of a short session: as lines for a shell, or as JSON in the form
that the AWS tools take from a credential_process. No access key is needed.`,
		Example: `  eval "$(muster sign-in alice --password-file ~/.muster-password)"
  muster sign-in alice --password-file first --new-password-file second
  muster sign-in alice --json`,
	}
	t := c.target(cmd)
	read := passwordFlag(cmd)
	renewed := cmd.Flags().String("new-password-file", "", "file with the password to have from now on")
	of := cmd.Flags().String("account", "", "account of the user (default the server's)")
	asJSON := cmd.Flags().Bool("json", false, "print JSON for a credential_process")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := read()
		if err != nil {
			return err
		}
		in := map[string]string{"user": args[0], "password": password}
		if *of != "" {
			in["account"] = *of
		}
		if *renewed != "" {
			if in["newPassword"], err = firstLine(cmd, *renewed); err != nil {
				return err
			}
		}
		api, err := t.clientAs(apiclient.Credentials{})
		if err != nil {
			return err
		}
		defer api.CloseIdle()
		var out signedIn
		if err := api.JSON(cmd.Context(), apiclient.Request{Method: http.MethodPost, Path: opsPath("sign-in")}, in, &out); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if out.PasswordChangeRequired {
			return errMustChange
		}
		if *asJSON {
			return c.printJSON(processCredentials{1, out.AccessKeyID, out.SecretAccessKey, out.SessionToken, out.Expiration})
		}
		return c.said("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\nexport AWS_SESSION_TOKEN=%s\n# %s until %s",
			out.AccessKeyID, out.SecretAccessKey, out.SessionToken, out.ARN, date(&out.Expiration))
	}
	return cmd
}
