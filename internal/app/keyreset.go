package app

import (
	"context"
	"os"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
)

// ResetKey replaces the root access key of the settings' account, in a data
// folder that no server uses, and writes the credentials file, whose path it
// returns.
func ResetKey(ctx context.Context, s config.Settings) (path string, err error) {
	// A folder that is named wrongly must not come into being.
	if _, err := os.Stat(s.DataDir); err != nil {
		return "", err
	}
	err = offline(ctx, s, func(dir *datadir.Dir, opened restorable) error {
		secrets, err := dir.Sub(datadir.SecretsDir)
		if err != nil {
			return err
		}
		sealer, err := account.OpenSealer(secrets + "/seal.age")
		if err != nil {
			return err
		}
		key, err := account.New(account.Options{Store: opened, Sealer: sealer, Now: now}).ResetRoot(ctx, s.AccountID)
		if err != nil {
			return err
		}
		path = dir.Path(datadir.CredentialsFile)
		return account.WriteCredentials(path, s.Region, key)
	})
	return path, err
}
