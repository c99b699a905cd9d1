package cli

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/listsign"
)

// maxListFile is the most that a list has in bytes.
const maxListFile = 64 << 20

// readList reads a list, or standard input for "-".
func readList(cmd *cobra.Command, path string) ([]byte, error) {
	source := cmd.InOrStdin()
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the file
		}
		defer file.Close() //nolint:errcheck // it was only read
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, maxListFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) == 0 || len(data) > maxListFile {
		return nil, fmt.Errorf("%s: a list has 1 to %d bytes", path, maxListFile)
	}
	return data, nil
}

// signedFiles is what was signed.
type signedFiles struct {
	KeyID     string   `json:"kid"`
	Algorithm string   `json:"alg"`
	Files     []string `json:"files"`
}

func (c *command) allowListSign() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Sign a list, and encrypt it, at the supplier's", Args: cobra.ExactArgs(1),
		Long: `Signs a list with the supplier's key and asks no server. The list is taken as it is:
JSON, JSON lines or CSV. FILE.jws is the signed list, a compact JWS; with --detached
FILE.sig is the signature alone, which goes along with FILE.

--encrypt-to makes it readable for one recipient only, the one that the operator's
"muster allowlist recipient" prints: the file ends in .age then. Files that are there
are not replaced.`,
		Example: `  muster allowlist sign --key line-1.key --kid line-1 pumps.json
  muster allowlist sign --key line-1.key --kid line-1 --encrypt-to age1… pumps.json
  muster allowlist sign --key line-1.key --kid line-1 --detached pumps.csv`,
	}
	f := cmd.Flags()
	keyFile := f.String("key", "", "file with the private key in PEM (required)")
	kid := f.String("kid", "", "id of the key, as the operator knows it (required)")
	detached := f.Bool("detached", false, "write the signature alone")
	recipient := f.String("encrypt-to", "", "age recipient that alone can read the list, age1…")
	out := f.String("out", "", "existing folder for the files (default that of FILE)")
	for _, name := range []string{"key", "kid"} {
		_ = cmd.MarkFlagRequired(name) // it is there
	}
	format := c.outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := readList(cmd, args[0])
		if err != nil {
			return err
		}
		text, err := readText(cmd, *keyFile)
		if err != nil {
			return err
		}
		key, err := listsign.ParseKey([]byte(text))
		if err != nil {
			return fmt.Errorf("%s %w", *keyFile, err)
		}
		if *out == "" {
			*out = filepath.Dir(args[0])
		}
		files, err := signList(key, *kid, list, *detached, *recipient)
		if err != nil {
			return err
		}
		made := signedFiles{KeyID: *kid, Algorithm: key.Algorithm()}
		base := filepath.Join(*out, filepath.Base(args[0]))
		for _, f := range files {
			made.Files = append(made.Files, base+f.ending)
		}
		if err := absent(made.Files...); err != nil {
			return err
		}
		for i, f := range files {
			if err := writeSecret(made.Files[i], string(f.content), false); err != nil {
				return err
			}
		}
		t := table{header: []string{"KID", "ALG", "FILES"}, raw: made}
		t.add(made.KeyID, made.Algorithm, strings.Join(made.Files, " "))
		return c.print(*format, t)
	}
	return cmd
}

// listFile is a file to write beside a list.
type listFile struct {
	ending  string
	content []byte
}

// signList is the list with its signature, or the signature beside it.
func signList(key *listsign.Key, kid string, list []byte, detached bool, recipient string) ([]listFile, error) {
	var files []listFile
	open := listFile{".jws", nil}
	if detached {
		signature, err := key.Detached(kid, list)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what was done
		}
		files = append(files, listFile{".sig", []byte(signature + "\n")})
		open = listFile{"", list}
	} else {
		compact, err := key.Compact(kid, list)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what was done
		}
		open.content = []byte(compact + "\n")
	}
	if recipient != "" {
		sealed, err := listsign.Encrypt(recipient, open.content)
		if err != nil {
			return nil, fmt.Errorf("--encrypt-to %w", err)
		}
		open = listFile{open.ending + ".age", sealed}
	}
	if open.ending != "" {
		files = append(files, open)
	}
	return files, nil
}

// listEndings are what a list's id has not of its file's name.
var listEndings = []string{".age", ".jws", ".json", ".jsonl", ".csv"}

// listOfFile is the id of the list in a file when nobody says it.
func listOfFile(path string) string {
	name := filepath.Base(path)
	for again := true; again; {
		again = false
		for _, ending := range listEndings {
			if short, ok := strings.CutSuffix(name, ending); ok && short != "" {
				name, again = short, true
			}
		}
	}
	return name
}

// signatureText is a signature as it is sent: JWS and base64 are text, what other tools
// write in bytes becomes base64.
func signatureText(cmd *cobra.Command, path string) (string, error) {
	text, err := readText(cmd, path)
	if err != nil {
		return "", err
	}
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	plain := strings.IndexFunc(text, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' && r != '\r' && r != '\t' }) < 0
	if !plain {
		return base64.StdEncoding.EncodeToString([]byte(text)), nil
	}
	return strings.TrimSpace(text), nil
}

func (c *command) allowListUpload() *cobra.Command {
	cmd := &cobra.Command{
		Use: "upload FILE", Short: "Upload a revision of a list, signed or with its signature", Args: cobra.ExactArgs(1),
		Long: `Uploads a list as it is: a compact JWS, or a JSON, JSON lines or CSV file with --sig,
each of them encrypted with age or not. The signature is that of "muster allowlist sign
--detached", or one of the bytes of the list by another tool, in base64 or not.

The list's id is the file's name without .json, .jsonl, .csv, .jws and .age, unless
--list says another one. The revision waits for a second person.

--link uploads with a link that the operator has sent, without an account; it says which
list of which supplier it is for.`,
		Example: `  muster allowlist upload --supplier acme pumps.json.jws.age
  muster allowlist upload --supplier acme --list pumps --sig list.sig list.csv
  muster allowlist upload --link https://muster.example.com/uploads/allowlists/… pumps.json.jws.age`,
	}
	f := cmd.Flags()
	u := apiclient.AllowListUpload{}
	f.StringVar(&u.Supplier, "supplier", "", "who has made the devices")
	f.StringVar(&u.List, "list", "", "id of the list")
	f.StringVar(&u.Name, "name", "", "name of the list for people; it keeps the one that it has without")
	f.StringVar(&u.KeyID, "kid", "", "which key has made a signature that does not say it; any without")
	sig := f.String("sig", "", "file with the signature")
	link := f.String("link", "", "upload link, instead of an account")
	cmd.MarkFlagsOneRequired("supplier", "link")
	for _, name := range []string{"supplier", "list", "name"} {
		cmd.MarkFlagsMutuallyExclusive("link", name)
	}
	format := c.outputFlag(cmd)
	t := c.target(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if u.Body, err = readList(cmd, args[0]); err != nil {
			return err
		}
		if *sig != "" {
			if u.Signature, err = signatureText(cmd, *sig); err != nil {
				return err
			}
		}
		if *link != "" {
			return c.uploadByLink(cmd, t, *link, u)
		}
		if u.List == "" {
			if u.List = listOfFile(args[0]); args[0] == "-" {
				return errors.New("--list must say which list standard input is")
			}
		}
		api, err := t.client()
		if err != nil {
			return err
		}
		defer api.CloseIdle()
		made, err := api.UploadAllowList(cmd.Context(), u)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.print(*format, listRevisionsTable([]apiclient.AllowListRevision{made}, made))
	}
	return cmd
}

// uploadByLink uploads as nobody.
func (c *command) uploadByLink(cmd *cobra.Command, t *target, link string, u apiclient.AllowListUpload) error {
	at, err := url.Parse(link)
	if err != nil || at.Host == "" || at.Path == "" || at.RawQuery != "" {
		return errors.New("--link must be the whole URL of the link, https://…")
	}
	t.endpoint = at.Scheme + "://" + at.Host
	api, err := t.clientAs(apiclient.Credentials{})
	if err != nil {
		return err
	}
	defer api.CloseIdle()
	said, err := api.UploadByLink(cmd.Context(), at.EscapedPath(), u)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	return c.said("%s", printable(strings.TrimSpace(said)))
}

// keyFingerprint is the SHA-256 of the public key in a certificate.
func keyFingerprint(text string) (string, error) {
	block, _ := pem.Decode(bytes.TrimSpace([]byte(text)))
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New("is no certificate in PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read the certificate: %w", err)
	}
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// madeLink is a link with its whole URL.
type madeLink struct {
	apiclient.AllowListLink

	URL string `json:"url"`
}

func (c *command) allowListLink() *cobra.Command {
	cmd := &cobra.Command{
		Use: "link LIST", Short: "Make a link by which a supplier without an account uploads one revision", Args: cobra.ExactArgs(1),
		Long: `Makes a link and prints its URL, once. Whoever has the URL can upload one revision of
this list; a list that is refused does not use the link up. The upload counts as yours:
another person has to accept it.`,
		Example: `  muster allowlist link pumps --supplier acme --valid-for 48h --base-url https://muster.example.com
  curl --upload-file pumps.json.jws.age "$URL"    # at the supplier's
  curl --upload-file pumps.csv "$URL?signature=$(base64 -w0 list.sig | sed 's/+/%2B/g')"`,
	}
	supplier := cmd.Flags().String("supplier", "", "who has made the devices (required)")
	life := cmd.Flags().String("valid-for", "", "how long it can be used, such as 48h, at most 720h (default a week)")
	base := cmd.Flags().String("base-url", "", "address under which the supplier reaches this server (default the one that is asked)")
	_ = cmd.MarkFlagRequired("supplier") // it is there
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if *base != "" {
			if at, err := url.Parse(*base); err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
				return table{}, errors.New("--base-url must be a URL such as https://muster.example.com")
			}
		}
		made, err := api.CreateAllowListLink(cmd.Context(), *supplier, args[0], *life)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		out := madeLink{AllowListLink: made, URL: api.Address() + made.Path}
		if *base != "" {
			out.URL = strings.TrimRight(*base, "/") + made.Path
		}
		t := table{header: []string{"LINK", "LIST", "SUPPLIER", "EXPIRES", "URL"}, raw: out}
		t.add(out.ID, out.List, out.Supplier, out.Expires, out.URL)
		return t, nil
	})
}

func (c *command) allowListLinks() *cobra.Command {
	cmd := &cobra.Command{
		Use: "links", Short: "List upload links, also used ones, without their URLs", Args: cobra.NoArgs,
		Example: "  muster allowlist links",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.AllowListLinks(cmd.Context(), *limit)
		t := table{header: []string{"LINK", "LIST", "SUPPLIER", "MADE BY", "EXPIRES", "USED", "REVISION"}, raw: found}
		for i := range found {
			e := &found[i]
			revision := ""
			if e.Revision > 0 {
				revision = fmt.Sprint(e.Revision)
			}
			t.add(e.ID, e.List, e.Supplier, e.CreatedBy, e.Expires, e.Used, revision)
		}
		return t, err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) allowListRevokeLink() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke-link LINK", Short: "End an upload link", Args: cobra.ExactArgs(1),
		Example: "  muster allowlist revoke-link 4f1c…",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return api.RevokeAllowListLink(cmd.Context(), args[0])
	})
}
