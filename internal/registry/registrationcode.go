package registry

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// registrationCodeBytes is half the length of a registration code.
const registrationCodeBytes = 32

// GetRegistrationCode returns what a verification certificate has to carry as
// its common name. The first call makes it; it stays until it is deleted.
func (s *Service) GetRegistrationCode(ctx context.Context, account fleet.Account) (string, error) {
	// Drawn ahead, so that repeated attempts decide the same.
	fresh := make([]byte, registrationCodeBytes)
	if _, err := rand.Read(fresh); err != nil {
		return "", fault.Wrap(fault.Internal, err, "Internal failure")
	}
	var code string
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		k := key(kindRegistrationCode, account)
		present, err := load[registrationCodeRecord](ctx, a, k)
		if err != nil {
			return err
		}
		if present != nil {
			code = present.Code
			return nil
		}
		code = hex.EncodeToString(fresh)
		a.emit(event.RegistrationCodeChanged{})
		return save(a, k, &registrationCodeRecord{Code: code})
	})
	return code, err
}

// DeleteRegistrationCode makes the code void, and verification certificates
// for it with it.
func (s *Service) DeleteRegistrationCode(ctx context.Context, account fleet.Account) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		k := key(kindRegistrationCode, account)
		present, err := load[registrationCodeRecord](ctx, a, k)
		if err != nil {
			return err
		}
		if present == nil {
			return fault.New(fault.ResourceNotFound, "the account has no registration code")
		}
		a.remove(k)
		a.emit(event.RegistrationCodeChanged{Deleted: true})
		return nil
	})
}

// proveCode compares a verification certificate with the account's code.
func proveCode(ctx context.Context, a *attempt, proof *x509.Certificate) error {
	present, err := load[registrationCodeRecord](ctx, a, key(kindRegistrationCode, a.account))
	if err != nil {
		return err
	}
	if present == nil {
		return fault.New(fault.RegistrationCodeValidation, "the account has no registration code; ask for one with GetRegistrationCode")
	}
	if subtle.ConstantTimeCompare([]byte(proof.Subject.CommonName), []byte(present.Code)) != 1 {
		return fault.New(fault.RegistrationCodeValidation,
			"verificationCertificate: its common name is not the account's registration code")
	}
	return nil
}
