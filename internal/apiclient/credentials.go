package apiclient

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/muster-iot/muster/internal/profile"
)

// Credentials are what requests are signed with.
type Credentials struct {
	AccessKeyID, Secret, Token string
	Region                     string
}

// CredentialSources says where to look, in this order: File, the AWS_*
// variables, and the credentials of the data folder. As with AWS's own tools, a
// Profile that the user named is stronger than keys in variables, and keys in
// variables are stronger than AWS_PROFILE. The user's own
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
	if id, secret := s.env("AWS_ACCESS_KEY_ID"), s.env("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" && s.Profile == "" {
		return Credentials{AccessKeyID: id, Secret: secret, Token: s.env("AWS_SESSION_TOKEN")}, nil
	}
	path := s.SharedFile()
	c, err := s.read(path)
	if s.env("AWS_SHARED_CREDENTIALS_FILE") != "" {
		return c, err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("no credentials: %s does not exist; start a server there, or name a file with --credentials, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", path)
	}
	return c, err
}

// SharedFile is where profiles are: the file that the user named, that of the
// variable, or that of the data folder.
func (s CredentialSources) SharedFile() string {
	for _, path := range []string{s.File, s.env("AWS_SHARED_CREDENTIALS_FILE")} {
		if path != "" {
			return path
		}
	}
	return filepath.Join(s.DataDir, "credentials")
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
	name := s.Profile
	if name == "" {
		name = s.env("AWS_PROFILE")
	}
	if name == "" {
		name = profile.Default
	}
	key, err := profile.Read(path, name)
	if err != nil {
		return Credentials{}, err //nolint:wrapcheck // it names file and profile
	}
	return Credentials{AccessKeyID: key.AccessKeyID, Secret: key.Secret, Token: key.Token, Region: key.Region}, nil
}
