package account

import "github.com/muster-iot/muster/internal/profile"

// WriteCredentials puts the key where AWS tools look when they are told
// AWS_SHARED_CREDENTIALS_FILE: as the default profile and as "muster". The
// region stands there too, so that no further setting is needed. Profiles of
// others stay, and a file that already says so is left alone.
func WriteCredentials(path, region string, key AccessKey) error {
	return profile.Write(path, profile.Key{AccessKeyID: key.ID, Secret: key.Secret, Region: region}, profile.Default, "muster") //nolint:wrapcheck // it says what failed
}
