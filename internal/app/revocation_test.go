package app

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/crl"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// authority signs devices outside of the server.
type authority struct {
	s    *site
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	id   string
}

// authority registers one in a mode.
func (s *site) authority(mode string) *authority {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.need(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme " + mode}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	s.need(err)
	a := &authority{s: s, key: key}
	a.cert, err = x509.ParseCertificate(der)
	s.need(err)
	command := registry.RegisterCACommand{CertificatePEM: certificatePEM(der), Mode: mode, Active: true}
	if mode == registry.ModeDefault {
		code, err := s.registry.GetRegistrationCode(s.t.Context(), s.account)
		s.need(err)
		proof, _ := a.issue(code, 1000, time.Hour)
		command.VerificationPEM = proof
	}
	made, err := s.registry.RegisterCACertificate(s.t.Context(), s.account, command)
	s.need(err)
	a.id = made.ID
	return a
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issue signs a certificate that is valid from an hour ago.
func (a *authority) issue(name string, serial int64, life time.Duration) (string, tls.Certificate) {
	a.s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.s.need(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	a.s.need(err)
	return certificatePEM(der), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// badge registers a device under the authority.
func (a *authority) badge(serial int64, life time.Duration) badge {
	a.s.t.Helper()
	text, pair := a.issue("device", serial, life)
	made, err := a.s.registry.RegisterCertificate(a.s.t.Context(), a.s.account, registry.RegisterCertificateCommand{CertificatePEM: text, Status: registry.StatusActive})
	a.s.need(err)
	return badge{id: made.ID, arn: made.ARN, pair: pair}
}

// list signs a revocation list.
func (a *authority) list(number int64, serials ...int64) []byte {
	a.s.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	a.s.need(err)
	return der
}

// operator is a client with the root key.
func (s *site) operator() *apiclient.Client {
	s.t.Helper()
	root, err := s.accounts.Root(s.t.Context(), s.account)
	s.need(err)
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + s.Addr(listenerHTTP).String(), Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: root.ID, Secret: root.Secret, Region: s.settings.Region},
	})
	s.need(err)
	s.t.Cleanup(api.CloseIdle)
	return api
}

const mayAll = `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`

// A device that a list names is told to leave before the import answers; its
// neighbour stays.
func TestImportedListEndsConnections(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	listed, spared := a.badge(7, time.Hour), a.badge(8, time.Hour)
	s.policy("p", mayAll, listed.arn, spared.arn)
	gone, stays := s.connect(listed, "listed"), s.connect(spared, "spared")
	done, err := s.operator().ImportRevocationList(t.Context(), a.id, a.list(1, 7))
	s.need(err)
	if done.Revoked != 1 || done.Entries != 1 || done.Number != "1" {
		t.Errorf("import %+v", done)
	}
	<-gone.Done()
	if !s.publishes(stays, "t") {
		t.Error("a certificate that is not listed lost its connection")
	}
	if _, err := s.dial(listed, client.Options{ClientID: "listed"}); s.may(err) {
		t.Error("a revoked certificate was admitted")
	}
	if _, err := s.operator().ImportRevocationList(t.Context(), a.id, a.list(1)); !apiclient.Is(err, "Conflict") {
		t.Errorf("a list with the same number: %v", err)
	}
}

// An inactive or deleted authority takes nothing from devices that are there,
// and a device certificate ends with its own validity.
func TestDevicesOfAnAuthority(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	lasting, short := a.badge(1, time.Hour), a.badge(2, 3*time.Second)
	s.policy("p", mayAll, lasting.arn, short.arn)
	c, ending := s.connect(lasting, "lasting"), s.connect(short, "short")
	s.need(s.registry.UpdateCACertificate(t.Context(), s.account, registry.UpdateCACommand{ID: a.id, Status: registry.StatusInactive}))
	s.need(s.registry.DeleteCACertificate(t.Context(), s.account, a.id))
	if !s.publishes(c, "t") {
		t.Error("lost its connection with its authority")
	}
	s.connect(lasting, "again")
	<-ending.Done()
	if _, err := s.dial(short, client.Options{ClientID: "short"}); s.may(err) {
		t.Error("an expired certificate was admitted")
	}
}

// Who names no server of ours is let in by a certificate in mode DEFAULT only.
func TestSNIOnlyNeedsAName(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	proven, named := s.authority(registry.ModeDefault).badge(1, time.Hour), s.authority(registry.ModeSNIOnly).badge(1, time.Hour)
	s.policy("p", mayAll, proven.arn, named.arn)
	for _, c := range []struct {
		badge badge
		name  string
		want  bool
	}{{proven, "", true}, {proven, "localhost", true}, {proven, "other.example", true}, {named, "localhost", true}, {named, "", false}, {named, "other.example", false}} {
		conn, err := client.Dial(t.Context(), s.Addr(listenerMQTT).String(), &tls.Config{
			Certificates: []tls.Certificate{c.badge.pair}, ServerName: c.name, InsecureSkipVerify: true,
		})
		s.need(err)
		connected, err := client.Connect(t.Context(), conn, client.Options{ClientID: "sni", Version: mqtt.V5})
		if s.may(err) != c.want {
			t.Errorf("%s with name %q: %v, want %v", c.badge.id, c.name, err, c.want)
		}
		if err == nil {
			s.need(connected.Close())
		}
	}
	refused := s.refusals("sni")
	if len(refused) != 1 || refused[0].Count != 2 || refused[0].Outcome != deviceauth.OutcomeUnauthenticated || len(refused[0].Fixes) != 1 {
		t.Errorf("refusals %+v", refused)
	}
}

// A transfer is felt by nobody who may be connected, and the certificate has
// the rights of its new account only.
func TestPendingTransferConnectsNobody(t *testing.T) {
	t.Parallel()
	const second = "000000000042"
	s := newSite(t)
	exists := func(context.Context, accountID) (bool, error) { return true, nil }
	var err error
	s.registry, err = registry.New(registryOptions(s, exists))
	s.need(err)
	b := s.authority(registry.ModeSNIOnly).badge(1, time.Hour)
	s.policy("p", mayAll, b.arn)
	c := s.connect(b, "c")
	s.need(s.registry.DetachPolicy(t.Context(), s.account, "p", b.arn))
	s.need(s.registry.UpdateCertificate(t.Context(), s.account, b.id, registry.StatusInactive))
	<-c.Done()
	_, err = s.registry.TransferCertificate(t.Context(), s.account, b.id, second, "")
	s.need(err)
	for step, act := range []func() error{
		func() error { return nil },
		func() error { return s.registry.AcceptCertificateTransfer(t.Context(), second, b.id, true) },
	} {
		s.need(act())
		if _, err := s.dial(b, client.Options{ClientID: "c"}); s.may(err) {
			t.Errorf("step %d: admitted in an account that has the certificate no more", step)
		}
	}
}

// registryOptions are those of the server's own registry with more accounts.
func registryOptions(s *site, exists func(context.Context, accountID) (bool, error)) registry.Options {
	return registry.Options{
		Store: s.store, Region: s.settings.Region, Now: now, Issuer: s.pki, Barrier: barrier{s.App}, Logger: s.component("registry"),
		NewID:      uuid.NewString,
		CheckQuery: func(string) error { return nil }, CheckPolicy: checkPolicy,
		GroupStatus:   func(accountID, string, string) string { return "" },
		AccountExists: exists,
	}
}

// Our own list is served without a signature, names what we issued and revoked,
// and is signed by the authority of our device certificates.
func TestOwnRevocationList(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	made, err := s.registry.CreateKeysAndCertificate(t.Context(), s.account, true)
	s.need(err)
	serial := parsePEM(t, made.PEM).SerialNumber
	fetch := func(method, etag string) (status int, header http.Header, body []byte) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr(listenerHTTP).String()+crlPath, nil)
		s.need(err)
		request.Header.Set("If-None-Match", etag)
		response, err := http.DefaultClient.Do(request)
		s.need(err)
		body, err = io.ReadAll(response.Body)
		s.need(err)
		s.need(response.Body.Close())
		return response.StatusCode, response.Header, body
	}
	entries := func(body []byte) (list *crl.List, serials []string) {
		t.Helper()
		list, err := crl.Parse(body)
		s.need(err)
		s.need(list.CheckSignatureFrom(parsePEM(t, string(s.pki.DeviceCAPEM()))))
		for e, err := range list.Entries() {
			s.need(err)
			serials = append(serials, e.Serial)
		}
		return list, serials
	}
	status, header, body := fetch(http.MethodGet, "")
	if status != http.StatusOK || header.Get("Content-Type") != "application/pkix-crl" {
		t.Errorf("status %d, type %s", status, header.Get("Content-Type"))
	}
	first, serials := entries(body)
	if len(serials) != 0 {
		t.Errorf("revoked %v before anything was", serials)
	}
	_, again, same := fetch(http.MethodGet, "")
	if !bytes.Equal(body, same) || again.Get("Etag") != header.Get("Etag") {
		t.Error("a list that is true was made again")
	}
	if unchanged, _, _ := fetch(http.MethodGet, header.Get("Etag")); unchanged != http.StatusNotModified {
		t.Errorf("status %d for a list that the caller has", unchanged)
	}
	if head, _, empty := fetch(http.MethodHead, ""); head != http.StatusOK || len(empty) != 0 {
		t.Errorf("HEAD: %d with %d bytes", head, len(empty))
	}
	if post, _, _ := fetch(http.MethodPost, ""); post != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", post)
	}
	s.need(s.registry.UpdateCertificate(t.Context(), s.account, made.ID, registry.StatusRevoked))
	s.need(s.registry.DeleteCertificate(t.Context(), s.account, made.ID, false))
	for len(serials) == 0 { // until the log's follower has heard of it
		_, _, body = fetch(http.MethodGet, "")
		var later *crl.List
		if later, serials = entries(body); len(serials) > 0 && later.Number.Cmp(first.Number) <= 0 {
			t.Errorf("number %s after %s", later.Number, first.Number)
		}
	}
	if len(serials) != 1 || serials[0] != crl.SerialText(serial) {
		t.Errorf("revoked %v, want %s", serials, crl.SerialText(serial))
	}
}

func parsePEM(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
