package account

import (
	"fmt"
	"os"

	"github.com/muster-iot/muster/internal/datadir"
)

// WriteCredentials puts the key where AWS tools look when they are told
// AWS_SHARED_CREDENTIALS_FILE: as the default profile and as "muster". The
// region stands there too, so that no further setting is needed. A file that
// already says so is left alone.
func WriteCredentials(path, region string, key AccessKey) error {
	section := "]\naws_access_key_id = " + key.ID + "\naws_secret_access_key = " + key.Secret + "\nregion = " + region + "\n"
	text := "[default" + section + "\n[muster" + section
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := datadir.WriteFile(path, []byte(text), datadir.PrivateMode); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}
