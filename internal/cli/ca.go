package cli

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/crl"
)

// Modes in which an authority can be registered.
const (
	modeDefault = "DEFAULT"
	modeSNIOnly = "SNI_ONLY"
)

// verificationLife is how long a verification certificate is valid: it is used
// at once and never again.
const verificationLife = time.Hour

// ca is the family of commands on authorities of device certificates.
func (c *command) ca() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Register CA certificates, say how their devices join, import and show revocation lists"}
	lists := &cobra.Command{Use: "crl", Short: "Import and show revocation lists"}
	lists.AddCommand(c.crlImport(), c.crlShow())
	cmd.AddCommand(c.caList(), c.caDescribe(), c.caRegister(), c.caAutoRegistration(), c.caTemplate(), c.caDeclare(), c.caDeclaration(), c.caPurpose(), lists)
	return cmd
}

// caTable shows authorities.
func caTable(found []apiclient.CACertificate, raw any) table {
	t := table{header: []string{"CA CERTIFICATE", "STATUS", "MODE", "CREATED", "ENDS"}, raw: raw}
	for i := range found {
		e := &found[i]
		t.add(e.ID, e.Status, e.Mode, seconds(e.Created), seconds(e.Valid.NotAfter))
	}
	return t
}

// caList lists authorities.
func (c *command) caList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List registered CA certificates, the newest first", Args: cobra.NoArgs,
		Example: "  muster ca list",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ListCACertificates(cmd.Context(), *limit)
		return caTable(found, found), err
	})
}

// caDescribe shows one authority.
func (c *command) caDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe CA-CERTIFICATE", Short: "Show one registered CA certificate by its id", Args: cobra.ExactArgs(1),
		Example: "  muster ca describe 4f1c… -o json",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		return describedCA(cmd.Context(), api, args[0])
	})
}

// describedCA shows one authority with how its devices join.
func describedCA(ctx context.Context, api *apiclient.Client, id string) (table, error) {
	e, err := api.DescribeCACertificate(ctx, id)
	if err != nil {
		return table{}, err //nolint:wrapcheck // the server's own words
	}
	t := caTable([]apiclient.CACertificate{e}, e)
	t.header = append(t.header, "AUTO REGISTRATION", "TEMPLATE")
	template := ""
	if r := e.Registration; r != nil {
		if template = r.TemplateName; template == "" {
			template = "(a body of its own)"
		}
	}
	t.rows[0] = append(t.rows[0], e.AutoRegistration, template)
	return t, nil
}

// caRegister registers an authority in one step.
func (c *command) caRegister() *cobra.Command {
	cmd := &cobra.Command{
		Use: "register CA.PEM", Short: "Register a CA certificate, proving that its key is at hand", Args: cobra.ExactArgs(1),
		Long: `Asks for the account's registration code, signs a verification certificate for
it with the CA's key, and registers the CA. The key stays on this machine: only
the verification certificate is sent.

In mode SNI_ONLY nothing is proven and no key is needed; devices under the CA
then have to name the account's endpoint in their TLS handshake.

With --allow-auto-registration, unknown devices under the CA are registered when
they connect: with --template they are provisioned by it, a template of type JITP,
else they wait for somebody to activate their certificate.`,
		Example: `  muster ca register ca.pem --key ca.key --set-as-active
  muster ca register ca.pem --mode SNI_ONLY --set-as-active
  muster ca register ca.pem --mode SNI_ONLY --set-as-active --allow-auto-registration --template maker`,
	}
	key := cmd.Flags().String("key", "", "file with the CA's private key, PEM")
	mode := cmd.Flags().String("mode", modeDefault, modeDefault+" or "+modeSNIOnly+"; --certificate-mode is the same")
	auto := cmd.Flags().Bool("allow-auto-registration", false, "let devices under it register by connecting")
	template := cmd.Flags().String("template", "", "template of type JITP that such devices are provisioned by")
	active := cmd.Flags().Bool("set-as-active", false, "let certificates be registered under it at once")
	cmd = c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		caPEM, err := os.ReadFile(args[0])
		if err != nil {
			return table{}, fmt.Errorf("read CA certificate: %w", err)
		}
		verification := ""
		switch {
		case *mode == modeSNIOnly && *key != "":
			return table{}, mistake(cmd, errors.New("--key proves nothing in mode "+modeSNIOnly))
		case *mode == modeDefault && *key == "":
			return table{}, mistake(cmd, errors.New("--key is needed in mode "+modeDefault))
		case *mode == modeDefault:
			code, err := api.RegistrationCode(cmd.Context())
			if err != nil {
				return table{}, fmt.Errorf("ask for the registration code: %w", err)
			}
			if verification, err = verificationCertificate(caPEM, *key, code, c.Now()); err != nil {
				return table{}, err
			}
		}
		id, err := api.RegisterCACertificate(cmd.Context(), apiclient.CARegistration{
			PEM: string(caPEM), VerificationPEM: verification, Mode: *mode, Active: *active, AutoRegistration: *auto, Template: *template,
		})
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		return describedCA(cmd.Context(), api, id)
	})
	// The older spelling, which is that of the wire.
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "certificate-mode" {
			name = "mode"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

// verificationCertificate signs a certificate for the code, with a key that is
// thrown away.
func verificationCertificate(caPEM []byte, keyFile, code string, now time.Time) (string, error) {
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return "", fmt.Errorf("read the CA's key: %w", err)
	}
	pair, err := tls.X509KeyPair(caPEM, keyPEM)
	if err != nil {
		return "", fmt.Errorf("read the CA and its key: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return "", errors.New("the CA's key cannot sign")
	}
	throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: code},
		NotBefore: now.Add(-verificationLife), NotAfter: now.Add(verificationLife),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, pair.Leaf, throwaway.Public(), signer)
	if err != nil {
		return "", fmt.Errorf("sign the verification certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// crlImport hands an authority's list over.
func (c *command) crlImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import CA-CERTIFICATE LIST", Short: "Revoke what a registered CA's revocation list names", Args: cobra.ExactArgs(2),
		Long: `Takes over the complete revocation list of a registered CA certificate, in PEM
or DER. Registered certificates with a listed serial number become REVOKED for
good and their connections end; others with one cannot be registered as long as
the list is in force. The command may be repeated: a list that was taken over
changes nothing, and one that broke off goes on.`,
		Example: "  muster ca crl import 4f1c… acme.crl",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		list, err := os.ReadFile(args[1])
		if err != nil {
			return table{}, fmt.Errorf("read revocation list: %w", err)
		}
		done, err := api.ImportRevocationList(cmd.Context(), args[0], list)
		t := table{header: []string{"NUMBER", "OF", "NEXT", "ENTRIES", "REVOKED NOW", "REMOVED", "UNCHANGED"}, raw: done}
		t.add(done.Number, done.ThisUpdate, done.NextUpdate, strconv.Itoa(done.Entries), strconv.Itoa(done.Revoked),
			strconv.Itoa(done.Removed), strconv.FormatBool(done.Unchanged))
		return t, err
	})
}

// shownList is the server's own list for machines.
type shownList struct {
	Issuer     string         `json:"issuer"`
	Number     string         `json:"number"`
	ThisUpdate time.Time      `json:"thisUpdate"`
	NextUpdate time.Time      `json:"nextUpdate"`
	Revoked    []revokedEntry `json:"revoked"`
}

// revokedEntry is one certificate on it.
type revokedEntry struct {
	Serial string    `json:"serial"`
	At     time.Time `json:"at"`
}

// crlShow shows the server's own list.
func (c *command) crlShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show the revocation list of the server's own device authority", Args: cobra.NoArgs,
		Long: `Shows the list that the server publishes at /crl/issuing-ca.crl: the certificates
that it issued itself and that were revoked. Its number and times go to standard
error.`,
		Example: `  muster ca crl show
  muster ca crl show -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		data, err := api.RevocationList(cmd.Context())
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		list, err := crl.Parse(data)
		if err != nil {
			return table{}, err //nolint:wrapcheck // it says what is wrong with it
		}
		shown := shownList{Issuer: list.Issuer.String(), ThisUpdate: list.ThisUpdate.UTC(), NextUpdate: list.NextUpdate.UTC(), Revoked: []revokedEntry{}}
		if list.Number != nil {
			shown.Number = list.Number.String()
		}
		t := table{header: []string{"SERIAL", "REVOKED"}}
		for entry, err := range list.Entries() {
			if err != nil {
				return table{}, err //nolint:wrapcheck // as above
			}
			shown.Revoked = append(shown.Revoked, revokedEntry{Serial: entry.Serial, At: entry.Revoked.UTC()})
			t.add(entry.Serial, entry.Revoked.UTC().Format(time.RFC3339))
		}
		t.raw = shown
		_, err = fmt.Fprintf(c.Err, "%s, number %s of %s, next by %s, %d revoked\n",
			shown.Issuer, shown.Number, shown.ThisUpdate.Format(time.RFC3339), shown.NextUpdate.Format(time.RFC3339), len(shown.Revoked))
		return t, err //nolint:wrapcheck // standard error says it all
	})
}
