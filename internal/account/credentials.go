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
	var text string
	for _, profile := range []string{"default", "muster"} {
		text += fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\nregion = %s\n\n", profile, key.ID, key.Secret, region)
	}
	text = text[:len(text)-1]
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := datadir.WriteFile(path, []byte(text), datadir.PrivateMode); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}
