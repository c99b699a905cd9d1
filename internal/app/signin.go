package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/signin"
)

// joinSignIn joins how people get in who have no key.
func (a *App) joinSignIn(context.Context) error {
	a.signInLines = inlet.NewQuota(allStrangerLines, allStrangerLines, strangerWindow)
	set := a.settings.SignIn
	provider, err := a.oidcProvider(set.OIDC)
	if err != nil {
		return err
	}
	a.signIn, err = signin.New(signin.Options{
		Accounts: a.accounts, Default: a.settings.AccountID, Session: set.Session, OIDC: provider,
		Limits: signin.Limits{Failures: set.MaxFailures, Total: set.MaxFailuresTotal, Window: set.FailureWindow},
		Now:    now, Logger: a.component("signin"),
	})
	return err
}

// oidcProvider describes the provider of the settings, nil for none.
func (a *App) oidcProvider(set config.OIDC) (*signin.OIDCOptions, error) {
	if set.Issuer == "" {
		return nil, nil //nolint:nilnil // none is no mistake.
	}
	o := &signin.OIDCOptions{
		Issuer: set.Issuer, ClientID: set.ClientID, RedirectURL: set.RedirectURL, Scopes: set.Scopes, Claim: set.Claim, Key: make([]byte, 32),
	}
	// People who are on their way when the server restarts begin again.
	if _, err := rand.Read(o.Key); err != nil {
		return nil, fmt.Errorf("draw a key for sign-ins: %w", err)
	}
	if set.ClientSecretFile != "" {
		secret, err := os.ReadFile(set.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("sign-in.oidc.client-secret-file: %w", err)
		}
		o.ClientSecret = strings.TrimSpace(string(secret))
	}
	for _, text := range set.Roles {
		role, err := config.ParseRole(text)
		if err != nil {
			return nil, fmt.Errorf("sign-in.oidc.role-map: %w", err)
		}
		mapping := signin.RoleMapping{Value: role.Value, Account: role.Account, Role: role.Role}
		if mapping.Account == "" {
			mapping.Account = a.settings.AccountID
		}
		o.Roles = append(o.Roles, mapping)
	}
	return o, nil
}

// signedIn tells of a sign-in, whether it succeeded or not.
func (a *App) signedIn(ctx context.Context, of fleet.Account, who fleet.Principal, method string, err error) {
	outcome := []slog.Attr{slog.String("account", string(of)), slog.String("principal", who.ARN), slog.String("method", method)}
	if err == nil {
		a.component("signin").LogAttrs(ctx, slog.LevelInfo, "signed in", outcome...)
		return
	}
	if suppressed, ok := a.signInLines.Take(method, now()); ok {
		outcome = append(outcome, slog.Int("suppressed", suppressed), slog.Any("err", err))
		a.component("signin").LogAttrs(ctx, slog.LevelInfo, "sign-in refused", outcome...)
	}
}
