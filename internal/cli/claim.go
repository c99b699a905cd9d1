package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Files of a claim.
const (
	claimCertificateFile = "claim.crt"
	claimKeyFile         = "claim.key"
)

// claim is the family of commands on claims of trusted users.
func (c *command) claim() *cobra.Command {
	cmd := &cobra.Command{Use: "claim", Short: "Issue claims with which devices are provisioned, and see what claims are used for"}
	cmd.AddCommand(c.claimIssue(), c.claimUses(), c.claimUse(), c.claimSettle())
	return cmd
}

// issuedClaim is a claim without its key, which is in a file.
type issuedClaim struct {
	CertificateID   string `json:"certificateId"`
	Template        string `json:"templateName"`
	Expires         string `json:"expiration"`
	CertificateFile string `json:"certificateFile"`
	KeyFile         string `json:"keyFile"`
}

// claimIssue makes a claim.
func (c *command) claimIssue() *cobra.Command {
	cmd := &cobra.Command{
		Use: "issue TEMPLATE", Short: "Issue a claim that is good for five minutes and one template", Args: cobra.ExactArgs(1),
		Long: `Issues a claim: a certificate and a key with which a device can be provisioned by
one template, for five minutes, and nothing else. They are written to claim.crt and
claim.key, which only you can read. The server does not keep the key.

Files of that name are not replaced, since they may be another claim that is still
needed; --overwrite replaces them.`,
		Example: `  muster claim issue pumps
  muster claim issue pumps --out /media/device --overwrite`,
	}
	out := cmd.Flags().String("out", ".", "existing folder for claim.crt and claim.key")
	overwrite := cmd.Flags().Bool("overwrite", false, "replace files that are there")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		issued := issuedClaim{Template: args[0], CertificateFile: filepath.Join(*out, claimCertificateFile), KeyFile: filepath.Join(*out, claimKeyFile)}
		if err := checkClaimFiles(*out, *overwrite, issued.CertificateFile, issued.KeyFile); err != nil {
			return table{}, err
		}
		claim, err := api.CreateClaim(cmd.Context(), args[0])
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		issued.CertificateID, issued.Expires = claim.ID, seconds(claim.Expires)
		for _, file := range []struct{ path, text string }{{issued.KeyFile, claim.KeyPair.PrivateKey}, {issued.CertificateFile, claim.PEM}} {
			if err := writeSecret(file.path, file.text, *overwrite); err != nil {
				return table{}, err
			}
		}
		t := table{header: []string{"CLAIM", "TEMPLATE", "EXPIRES", "CERTIFICATE FILE", "KEY FILE"}, raw: issued}
		t.add(issued.CertificateID, issued.Template, issued.Expires, issued.CertificateFile, issued.KeyFile)
		return t, nil
	})
}

// checkClaimFiles refuses, before a claim is asked for, what could not be written.
func checkClaimFiles(folder string, overwrite bool, paths ...string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("--out: %s is no folder", folder)
	}
	for _, path := range paths {
		_, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("look for %s: %w", path, err)
		case !overwrite:
			return fmt.Errorf("%s is there already; --overwrite replaces it", path)
		}
	}
	return nil
}

// secretMode lets nobody but the owner read.
const secretMode = 0o600

// writeSecret makes a file that only its owner can read: always a new one, whose
// mode is not that of an old one or of what a link points to.
func writeSecret(path, text string, overwrite bool) error {
	if overwrite {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace %s: %w", path, err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, secretMode)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
