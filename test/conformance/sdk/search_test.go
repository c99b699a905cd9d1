package sdk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/testkit"
)

// comesToFind waits until a search answers the wanted things.
func (o *operator) comesToFind(query string, want ...string) {
	o.t.Helper()
	testkit.Poll(o.t, 10*time.Second, query, func() error {
		out, err := o.SearchIndex(o.t.Context(), &iot.SearchIndexInput{QueryString: &query})
		if err != nil {
			return err
		}
		var got []string
		for _, thing := range out.Things {
			got = append(got, *thing.ThingName)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("found %q, want %q", got, want)
		}
		return nil
	})
}

// TestSearchByCertificate finds things by what is attached to them while that
// changes, by groups too, and after a restart from the store.
func TestSearchByCertificate(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	for _, name := range []string{"cert-a", "cert-b", "cert-c"} {
		must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name})
	}
	own := must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	shared := must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{SetAsActive: false})
	attach := func(thing, principal string) {
		must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &principal})
	}
	attach("cert-a", *own.CertificateArn)
	attach("cert-a", *shared.CertificateArn)
	attach("cert-b", *shared.CertificateArn)
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{
		ThingGroupName: new("no-way-in"), QueryString: new("muster.certificate.count>0 NOT muster.certificate.status:ACTIVE"),
	})
	described := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: own.CertificateId})
	end := described.CertificateDescription.Validity.NotAfter.UnixMilli()

	o.comesToFind("muster.certificate.count:2", "cert-a")
	o.comesToFind("muster.certificate.count:0", "cert-c")
	o.comesToFind(fmt.Sprintf("muster.certificate.notAfter<=%d", end), "cert-a")
	o.comesToFind("muster.certificate.status:INACTIVE", "cert-a", "cert-b")
	o.comesToFind("thingGroupNames:no-way-in", "cert-b")

	status := func(id *string, s types.CertificateStatus) {
		must(o, o.UpdateCertificate, &iot.UpdateCertificateInput{CertificateId: id, NewStatus: s})
	}
	status(shared.CertificateId, types.CertificateStatusActive)
	o.comesToFind("muster.certificate.notAfter:*", "cert-a", "cert-b")
	o.comesToFind("thingGroupNames:no-way-in")
	status(own.CertificateId, types.CertificateStatusRevoked)
	status(shared.CertificateId, types.CertificateStatusRevoked)
	o.comesToFind("muster.certificate.status:REVOKED NOT muster.certificate.status:ACTIVE", "cert-a", "cert-b")
	o.comesToFind("thingGroupNames:no-way-in", "cert-a", "cert-b")
	must(o, o.DetachThingPrincipal, &iot.DetachThingPrincipalInput{ThingName: new("cert-b"), Principal: shared.CertificateArn})
	o.comesToFind("muster.certificate.count:0", "cert-b", "cert-c")
	o.comesToFind("thingGroupNames:no-way-in", "cert-a")

	server.Stop()
	server.Start()
	o = newOperator(t, server)
	o.comesToFind("muster.certificate.count:2", "cert-a")
	o.comesToFind("muster.certificate.count:0", "cert-b", "cert-c")
	o.comesToFind("muster.certificate.status:REVOKED", "cert-a")
	o.comesToFind("thingGroupNames:no-way-in", "cert-a")
}

// TestSearchForViolations: nothing detects violations, which every document
// says, and queries on them are answered so.
func TestSearchForViolations(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("calm")})
	o.comesToFind("deviceDefender.violationCount:0", "calm")
	o.comesToFind("deviceDefender.violationCount>0")
	o.comesToFind("deviceDefender.profile.rate.inViolation:true")
	out := must(o, o.SearchIndex, &iot.SearchIndexInput{QueryString: new("thingName:calm")})
	if got := val(out.Things[0].DeviceDefender); got != `{"violationCount":0}` {
		t.Errorf("the document has %q", got)
	}
	for query, says := range map[string]string{
		"deviceDefender.profile.rate.inViolation:false":          "at character 41",
		"shadow.reported.elsewhere:geo_distance,59.91,10.75,1km": "geoLocations",
		"shadow.reported.elsewhere:geo_distance,91,10.75,1km":    "latitude",
	} {
		_, err := o.SearchIndex(t.Context(), &iot.SearchIndexInput{QueryString: &query})
		var invalid *types.InvalidQueryException
		if !errors.As(err, &invalid) || !strings.Contains(invalid.ErrorMessage(), says) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
