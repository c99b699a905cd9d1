package apiclient

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Credentials are what requests are signed with.
type Credentials struct {
	AccessKeyID, Secret, Token string
	Region                     string
}

// CredentialSources says where to look, in this order: File, the AWS_*
// variables, and the credentials of the data folder. The user's own
// ~/.aws/credentials is never read: those keys belong to somebody else's
// cloud.
type CredentialSources struct {
	// File was named by the user; empty for none.
	File string
	// Profile is the section to read; empty means AWS_PROFILE or "default".
	Profile string
	// DataDir is a server's data folder on this machine.
	DataDir string
	// Region was named by the user; empty means that of the source.
	Region string
	// LookupEnv is os.LookupEnv outside tests.
	LookupEnv func(string) (string, bool)
}

// defaultRegion is signed with when nobody names one; servers accept any.
const defaultRegion = "us-east-1"

// maxCredentialsBytes bounds a credentials file.
const maxCredentialsBytes = 1 << 20

// Load finds credentials.
func (s CredentialSources) Load() (Credentials, error) {
	c, err := s.find()
	if err != nil {
		return Credentials{}, err
	}
	for _, region := range []string{s.Region, s.env("AWS_REGION"), s.env("AWS_DEFAULT_REGION"), c.Region, defaultRegion} {
		if region != "" {
			c.Region = region
			break
		}
	}
	return c, nil
}

// find goes through the sources.
func (s CredentialSources) find() (Credentials, error) {
	if s.File != "" {
		return s.read(s.File)
	}
	if id, secret := s.env("AWS_ACCESS_KEY_ID"), s.env("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		return Credentials{AccessKeyID: id, Secret: secret, Token: s.env("AWS_SESSION_TOKEN")}, nil
	}
	if path := s.env("AWS_SHARED_CREDENTIALS_FILE"); path != "" {
		return s.read(path)
	}
	path := filepath.Join(s.DataDir, "credentials")
	c, err := s.read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("no credentials: %s does not exist; start a server there, or name a file with --credentials, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", path)
	}
	return c, err
}

// env returns a variable, "" when it is not set.
func (s CredentialSources) env(name string) string {
	if s.LookupEnv == nil {
		return ""
	}
	v, _ := s.LookupEnv(name)
	return v
}

// read takes the profile from a file in the shared-credentials format.
func (s CredentialSources) read(path string) (Credentials, error) {
	profile := s.Profile
	if profile == "" {
		profile = s.env("AWS_PROFILE")
	}
	if profile == "" {
		profile = "default"
	}
	info, err := os.Stat(path)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials: %w", err)
	}
	if info.Size() > maxCredentialsBytes {
		return Credentials{}, fmt.Errorf("%s is too large for a credentials file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials: %w", err)
	}
	values, ok := parseProfile(data, profile)
	if !ok {
		return Credentials{}, fmt.Errorf("%s has no profile %q", path, profile)
	}
	c := Credentials{
		AccessKeyID: values["aws_access_key_id"], Secret: values["aws_secret_access_key"],
		Token: values["aws_session_token"], Region: values["region"],
	}
	if c.AccessKeyID == "" || c.Secret == "" {
		return Credentials{}, fmt.Errorf("profile %q in %s has no aws_access_key_id and aws_secret_access_key", profile, path)
	}
	return c, nil
}

// parseProfile reads one section of an INI file; ok is false when there is no
// such section.
func parseProfile(data []byte, profile string) (values map[string]string, ok bool) {
	values = map[string]string{}
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxCredentialsBytes+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			inside = strings.TrimSpace(line[1:len(line)-1]) == profile
			ok = ok || inside
			continue
		}
		if name, value, found := strings.Cut(line, "="); inside && found {
			values[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	return values, ok
}
