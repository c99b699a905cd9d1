package app

import (
	"context"
	"os"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/profile"
)

// ResetKey replaces the root access key of the settings' account, in a data
// folder that no server uses, and writes the credentials file. It returns the
// file's path and the profile that has the key. That is the default one, unless
// it is another account's: a server that starts puts its own key there.
func ResetKey(ctx context.Context, s config.Settings) (path, name string, err error) {
	// A folder that is named wrongly must not come into being.
	if _, err := os.Stat(s.DataDir); err != nil {
		return "", "", err
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
		accounts := account.New(account.Options{Store: opened, Sealer: sealer, Now: now})
		path, name = dir.Path(datadir.CredentialsFile), profile.Default
		if held, err := profile.Read(path, profile.Default); err == nil {
			if _, of, _, err := accounts.SecretKey(ctx, held.AccessKeyID); err == nil && of != s.AccountID {
				name = "account-" + string(s.AccountID)
			}
		}
		key, err := accounts.ResetRoot(ctx, s.AccountID)
		if err != nil {
			return err
		}
		if name == profile.Default {
			return account.WriteCredentials(path, s.Region, key)
		}
		return profile.Write(path, profile.Key{AccessKeyID: key.ID, Secret: key.Secret, Region: s.Region}, name)
	})
	return path, name, err
}
