package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// act is one call of an operation on the resources of an account, by their
// names, ARNs and ids. Names are the same in every account.
type act struct {
	op string
	// in is an input of either SDK, or an apiclient.Request where they have none.
	in any
	// refused is the exception that a caller gets whose own account is empty; ""
	// for operations that succeed there, because they make something or list.
	refused string
	// builds marks what an account is made of, shows what tells its whole state.
	builds, shows bool
}

const (
	notFound = "ResourceNotFoundException"
	invalid  = "InvalidRequestException"
	// denied is what naming another account's resource by ARN comes to.
	denied = "AccessDeniedException"
)

// acts are calls on the resources of one account, in an order in which its owner
// succeeds with all of them. Every operation that is offered is among them.
// Callers put their own secret into what they write.
func acts(t *testing.T, of *neighbour, secret string) []act {
	t.Helper()
	have := offered(t)
	return slices.DeleteFunc(allActs(t, of, secret), func(a act) bool { return !have[a.op] })
}

// offered are the names of the operations that the server has.
func offered(t *testing.T) map[string]bool {
	t.Helper()
	s := newServer(t)
	register(s)
	operations, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, service := range operations.Services() {
		for _, op := range operations.Operations(service) {
			names[op.Name] = names[op.Name] || s.Offers(service, op.Name)
		}
	}
	return names
}

// allActs are acts with those that a later version may offer.
func allActs(t *testing.T, of *neighbour, secret string) []act {
	t.Helper()
	scope := of.arns
	site, low, bills := "site", "low", "bills"
	document := `{"Version":"2012-10-17","Statement":[{"Sid":"` + secret + `","Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	cert, certID := of.certARN(), of.certID
	merge := types.AttributePayload{Attributes: map[string]string{"kept": secret}, Merge: true}
	described := types.ThingGroupProperties{ThingGroupDescription: &secret}
	connection := func(method, rest string, body string) apiclient.Request {
		return apiclient.Request{Service: "iotdata", Method: method, Path: "/connections/pump" + rest, Body: []byte(body)}
	}
	direct := connection(http.MethodPost, "/messages", secret)
	direct.Query = url.Values{"topic": {"plant/direct"}}
	build, show := true, true
	return []act{
		{op: "CreateThingType", in: &iot.CreateThingTypeInput{ThingTypeName: new("pumps"), ThingTypeProperties: &types.ThingTypeProperties{ThingTypeDescription: &secret}}, builds: build},
		{op: "CreateThing", in: &iot.CreateThingInput{ThingName: new("pump"), AttributePayload: &merge}, builds: build},
		{op: "CreateThingGroup", in: &iot.CreateThingGroupInput{ThingGroupName: &site, ThingGroupProperties: &described}, builds: build},
		{op: "CreateDynamicThingGroup", in: &iot.CreateDynamicThingGroupInput{ThingGroupName: &low, QueryString: new("thingName:pump*"), ThingGroupProperties: &described}, builds: build},
		{op: "AddThingToThingGroup", in: &iot.AddThingToThingGroupInput{ThingName: new("pump"), ThingGroupName: &site}, refused: notFound, builds: build},
		{op: "AddThingToThingGroup", in: &iot.AddThingToThingGroupInput{ThingArn: new(scope + "thing/pump"), ThingGroupArn: new(scope + "thinggroup/site")}, refused: denied},
		{op: "CreatePolicy", in: &iot.CreatePolicyInput{PolicyName: new("may"), PolicyDocument: &document}, builds: build},
		{op: "RegisterCertificateWithoutCA", in: &iot.RegisterCertificateWithoutCAInput{CertificatePem: &of.certPEM, Status: types.CertificateStatusActive}, builds: build},
		{op: "CreateCertificateFromCsr", in: &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(csr(t, secret))}},
		{op: "CreateKeysAndCertificate", in: &iot.CreateKeysAndCertificateInput{}},
		{op: "RegisterCACertificate", in: &iot.RegisterCACertificateInput{CaCertificate: &of.caPEM, CertificateMode: types.CertificateModeSniOnly, SetAsActive: true}, builds: build},
		{op: "RegisterCertificate", in: &iot.RegisterCertificateInput{CertificatePem: &of.leafPEM, CaCertificatePem: &of.caPEM, Status: types.CertificateStatusActive}, refused: "CertificateValidationException", builds: build},
		{op: "RegisterCertificateWithoutCA", in: &iot.RegisterCertificateWithoutCAInput{CertificatePem: &of.outPEM}, builds: build},
		{op: "TransferCertificate", in: &iot.TransferCertificateInput{CertificateId: &of.outID, TargetAwsAccount: new("000000000000"), TransferMessage: &secret}, refused: notFound, builds: build},
		{op: "GetRegistrationCode", in: &iot.GetRegistrationCodeInput{}, builds: build, shows: show},
		{op: "AttachPolicy", in: &iot.AttachPolicyInput{PolicyName: new("may"), Target: &cert}, refused: denied, builds: build},
		{op: "AttachPolicy", in: &iot.AttachPolicyInput{PolicyName: new("may"), Target: new(scope + "thinggroup/site")}, refused: denied, builds: build},
		{op: "AttachPrincipalPolicy", in: &iot.AttachPrincipalPolicyInput{PolicyName: new("may"), Principal: &cert}, refused: denied},
		{op: "AttachThingPrincipal", in: &iot.AttachThingPrincipalInput{ThingName: new("pump"), Principal: &cert}, refused: denied, builds: build},
		{op: "CreateAuthorizer", in: &iot.CreateAuthorizerInput{
			AuthorizerName: new("gate"), AuthorizerFunctionArn: new("arn:aws:lambda:us-east-1:" + of.account + ":function:gate"),
			TokenKeyName: &secret, SigningDisabled: new(true), Status: types.AuthorizerStatusActive,
		}, refused: invalid, builds: build},
		{op: "SetDefaultAuthorizer", in: &iot.SetDefaultAuthorizerInput{AuthorizerName: new("gate")}, refused: notFound, builds: build},
		{op: "CreateCertificateProvider", in: &iot.CreateCertificateProviderInput{
			CertificateProviderName: new("signs"), LambdaFunctionArn: new("arn:aws:lambda:us-east-1:" + of.account + ":function:gate"),
			AccountDefaultForOperations: []types.CertificateProviderOperation{providerOperation}, Tags: []types.Tag{{Key: new("kept"), Value: &secret}},
		}, refused: invalid, builds: build},
		{op: "UpdateThingShadow", in: &iotdataplane.UpdateThingShadowInput{ThingName: new("pump"), Payload: []byte(`{"state":{"reported":{"s":"` + secret + `"}}}`)}, builds: build},
		{op: "UpdateThingShadow", in: &iotdataplane.UpdateThingShadowInput{ThingName: new("pump"), ShadowName: new("config"), Payload: []byte(`{"state":{"desired":{"s":"` + secret + `"}}}`)}, builds: build},
		{op: "UpdateThingShadow", in: &iotdataplane.UpdateThingShadowInput{ThingName: new("pump"), ShadowName: new("extra"), Payload: []byte(`{"state":{"desired":{"s":"` + secret + `"}}}`)}, builds: build},
		{op: "Publish", in: &iotdataplane.PublishInput{Topic: new("plant/kept"), Payload: []byte(secret), Retain: new(true), Qos: new(int64(1))}, builds: build},
		{op: "CreateBillingGroup", in: &iot.CreateBillingGroupInput{BillingGroupName: &bills, BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: &secret}}, builds: build},
		{op: "AddThingToBillingGroup", in: &iot.AddThingToBillingGroupInput{ThingName: new("pump"), BillingGroupName: &bills}, refused: notFound, builds: build},
		{op: "AddThingToBillingGroup", in: &iot.AddThingToBillingGroupInput{ThingArn: new(scope + "thing/pump"), BillingGroupArn: new(scope + "billinggroup/bills")}, refused: denied},
		{op: "TagResource", in: &iot.TagResourceInput{ResourceArn: new(scope + "billinggroup/bills"), Tags: []types.Tag{{Key: new("kept"), Value: &secret}}}, refused: denied, builds: build},
		{op: "CreateProvisioningTemplate", in: &iot.CreateProvisioningTemplateInput{
			TemplateName: new("joins"), TemplateBody: new(joiningBody), ProvisioningRoleArn: new(templateRole), Description: &secret, Enabled: new(true),
		}, builds: build},
		{op: "CreateProvisioningTemplateVersion", in: &iot.CreateProvisioningTemplateVersionInput{TemplateName: new("joins"), TemplateBody: new(joiningBody)}, refused: notFound, builds: build},
		{op: "UpdateEventConfigurations", in: &iot.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{"THING": {Enabled: true}}}, builds: build},

		{op: "DescribeEndpoint", in: &iot.DescribeEndpointInput{EndpointType: new("iot:Data-ATS")}, shows: show},
		{op: "DescribeThing", in: &iot.DescribeThingInput{ThingName: new("pump")}, refused: notFound, shows: show},
		{op: "DescribeThingType", in: &iot.DescribeThingTypeInput{ThingTypeName: new("pumps")}, refused: notFound, shows: show},
		{op: "DescribeThingGroup", in: &iot.DescribeThingGroupInput{ThingGroupName: &site}, refused: notFound, shows: show},
		{op: "DescribeThingGroup", in: &iot.DescribeThingGroupInput{ThingGroupName: &low}, refused: notFound, shows: show},
		{op: "DescribeCertificate", in: &iot.DescribeCertificateInput{CertificateId: &certID}, refused: notFound, shows: show},
		{op: "DescribeCertificate", in: &iot.DescribeCertificateInput{CertificateId: &of.outID}, refused: notFound, shows: show},
		{op: "DescribeCACertificate", in: &iot.DescribeCACertificateInput{CertificateId: &of.caID}, refused: notFound, shows: show},
		{op: "ListCACertificates", in: &iot.ListCACertificatesInput{}, shows: show},
		{op: "ListCertificatesByCA", in: &iot.ListCertificatesByCAInput{CaCertificateId: &of.caID}, shows: show},
		{op: "ListOutgoingCertificates", in: &iot.ListOutgoingCertificatesInput{}, shows: show},
		{op: "TestAuthorization", in: &iot.TestAuthorizationInput{Principal: &cert, AuthInfos: []types.AuthInfo{{ActionType: types.ActionTypePublish, Resources: []string{scope + "topic/t"}}}}, refused: denied, shows: show},
		{op: "DescribeAuthorizer", in: &iot.DescribeAuthorizerInput{AuthorizerName: new("gate")}, refused: notFound, shows: show},
		{op: "DescribeDefaultAuthorizer", in: &iot.DescribeDefaultAuthorizerInput{}, refused: notFound, shows: show},
		{op: "DescribeIndex", in: &iot.DescribeIndexInput{IndexName: new("AWS_Things")}, shows: show},
		{op: "GetStatistics", in: &iot.GetStatisticsInput{QueryString: new("*"), AggregationField: new("thingName")}, shows: show},
		{op: "GetCardinality", in: &iot.GetCardinalityInput{QueryString: new("*"), AggregationField: new("thingName")}, shows: show},
		{op: "GetPercentiles", in: &iot.GetPercentilesInput{QueryString: new("*")}, shows: show},
		{op: "GetBucketsAggregation", in: &iot.GetBucketsAggregationInput{
			QueryString: new("*"), AggregationField: new("thingName"),
			BucketsAggregationType: &types.BucketsAggregationType{TermsAggregation: &types.TermsAggregation{MaxBuckets: new(int32(100))}},
		}, shows: show},
		{op: "GetIndexingConfiguration", in: &iot.GetIndexingConfigurationInput{}, shows: show},
		{op: "UpdateIndexingConfiguration", in: &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: indexingWith("attributes." + secret)}, builds: build},
		{op: "GetPolicy", in: &iot.GetPolicyInput{PolicyName: new("may")}, refused: notFound, shows: show},
		{op: "GetPolicyVersion", in: &iot.GetPolicyVersionInput{PolicyName: new("may"), PolicyVersionId: new("1")}, refused: notFound, shows: show},
		{op: "GetEffectivePolicies", in: &iot.GetEffectivePoliciesInput{Principal: &cert, ThingName: new("pump")}, refused: denied, shows: show},
		{op: "GetThingConnectivityData", in: &iot.GetThingConnectivityDataInput{ThingName: new("pump")}, refused: notFound},
		{op: "TestInvokeAuthorizer", in: &iot.TestInvokeAuthorizerInput{AuthorizerName: new("gate"), Token: new("t")}, refused: notFound},
		{op: "ListAttachedPolicies", in: &iot.ListAttachedPoliciesInput{Target: &cert}, refused: denied, shows: show},
		{op: "ListAttachedPolicies", in: &iot.ListAttachedPoliciesInput{Target: new(scope + "thinggroup/site"), Recursive: true}, refused: denied, shows: show},
		{op: "ListAuthorizers", in: &iot.ListAuthorizersInput{}, shows: show},
		{op: "ListCertificates", in: &iot.ListCertificatesInput{}, shows: show},
		{op: "ListIndices", in: &iot.ListIndicesInput{}, shows: show},
		{op: "ListPolicies", in: &iot.ListPoliciesInput{}, shows: show},
		{op: "ListPolicyPrincipals", in: &iot.ListPolicyPrincipalsInput{PolicyName: new("may")}, refused: notFound, shows: show},
		{op: "ListPolicyVersions", in: &iot.ListPolicyVersionsInput{PolicyName: new("may")}, refused: notFound, shows: show},
		{op: "ListPrincipalPolicies", in: &iot.ListPrincipalPoliciesInput{Principal: &cert}, refused: denied, shows: show},
		{op: "ListPrincipalThings", in: &iot.ListPrincipalThingsInput{Principal: &cert}, refused: denied, shows: show},
		{op: "ListPrincipalThingsV2", in: &iot.ListPrincipalThingsV2Input{Principal: &cert}, refused: denied, shows: show},
		{op: "ListTargetsForPolicy", in: &iot.ListTargetsForPolicyInput{PolicyName: new("may")}, refused: notFound, shows: show},
		{op: "ListThingGroups", in: &iot.ListThingGroupsInput{}, shows: show},
		{op: "ListThingGroups", in: &iot.ListThingGroupsInput{ParentGroup: &site}, refused: notFound, shows: show},
		{op: "ListThingGroupsForThing", in: &iot.ListThingGroupsForThingInput{ThingName: new("pump")}, refused: notFound, shows: show},
		{op: "ListThingPrincipals", in: &iot.ListThingPrincipalsInput{ThingName: new("pump")}, refused: notFound, shows: show},
		{op: "ListThingPrincipalsV2", in: &iot.ListThingPrincipalsV2Input{ThingName: new("pump")}, refused: notFound, shows: show},
		{op: "ListThingTypes", in: &iot.ListThingTypesInput{}, shows: show},
		{op: "ListThings", in: &iot.ListThingsInput{}, shows: show},
		{op: "ListThings", in: &iot.ListThingsInput{AttributeName: new("kept"), AttributeValue: &of.secret}, shows: show},
		{op: "ListThingsInThingGroup", in: &iot.ListThingsInThingGroupInput{ThingGroupName: &site}, refused: notFound, shows: show},
		{op: "ListThingsInThingGroup", in: &iot.ListThingsInThingGroupInput{ThingGroupName: &low}, refused: notFound},
		{op: "SearchIndex", in: &iot.SearchIndexInput{QueryString: new("thingName:* OR attributes.kept:*")}, shows: show},
		{op: "GetThingShadow", in: &iotdataplane.GetThingShadowInput{ThingName: new("pump")}, refused: notFound, shows: show},
		{op: "GetThingShadow", in: &iotdataplane.GetThingShadowInput{ThingName: new("pump"), ShadowName: new("config")}, refused: notFound, shows: show},
		{op: "ListNamedShadowsForThing", in: &iotdataplane.ListNamedShadowsForThingInput{ThingName: new("pump")}, shows: show},
		{op: "GetRetainedMessage", in: &iotdataplane.GetRetainedMessageInput{Topic: new("plant/kept")}, refused: notFound, shows: show},
		{op: "ListRetainedMessages", in: &iotdataplane.ListRetainedMessagesInput{}, shows: show},
		{op: "DescribeBillingGroup", in: &iot.DescribeBillingGroupInput{BillingGroupName: &bills}, refused: notFound, shows: show},
		{op: "DescribeEventConfigurations", in: &iot.DescribeEventConfigurationsInput{}, shows: show},
		{op: "ListBillingGroups", in: &iot.ListBillingGroupsInput{}, shows: show},
		{op: "ListThingsInBillingGroup", in: &iot.ListThingsInBillingGroupInput{BillingGroupName: &bills}, refused: notFound, shows: show},
		{op: "ListTagsForResource", in: &iot.ListTagsForResourceInput{ResourceArn: new(scope + "billinggroup/bills")}, refused: denied, shows: show},
		{op: "DescribeCertificateProvider", in: &iot.DescribeCertificateProviderInput{CertificateProviderName: new("signs")}, refused: notFound, shows: show},
		{op: "ListCertificateProviders", in: &iot.ListCertificateProvidersInput{}, shows: show},
		{op: "ListTagsForResource", in: &iot.ListTagsForResourceInput{ResourceArn: new(scope + "certificateprovider/signs")}, refused: denied, shows: show},
		{op: "DescribeProvisioningTemplate", in: &iot.DescribeProvisioningTemplateInput{TemplateName: new("joins")}, refused: notFound, shows: show},
		{op: "DescribeProvisioningTemplateVersion", in: &iot.DescribeProvisioningTemplateVersionInput{TemplateName: new("joins"), VersionId: new(int32(2))}, refused: notFound, shows: show},
		{op: "ListProvisioningTemplates", in: &iot.ListProvisioningTemplatesInput{}, shows: show},
		{op: "ListProvisioningTemplateVersions", in: &iot.ListProvisioningTemplateVersionsInput{TemplateName: new("joins")}, refused: notFound, shows: show},
		{op: "DescribeThingRegistrationTask", in: &iot.DescribeThingRegistrationTaskInput{TaskId: &of.taskID}, refused: notFound, shows: show},
		{op: "ListThingRegistrationTasks", in: &iot.ListThingRegistrationTasksInput{}, shows: show},
		{op: "ListThingRegistrationTaskReports", in: &iot.ListThingRegistrationTaskReportsInput{TaskId: &of.taskID, ReportType: types.ReportTypeResults}, refused: notFound},
		{op: "GetConnection", in: connection(http.MethodGet, "", ""), refused: notFound},
		{op: "ListSubscriptions", in: connection(http.MethodGet, "/subscriptions", ""), refused: notFound},
		{op: "SendDirectMessage", in: direct, refused: notFound},

		{op: "CreateProvisioningClaim", in: &iot.CreateProvisioningClaimInput{TemplateName: new("joins")}, refused: notFound},
		{op: "RegisterThing", in: &iot.RegisterThingInput{TemplateBody: new(keptBody), Parameters: map[string]string{"Kept": secret}}},
		{op: "StartThingRegistrationTask", in: &iot.StartThingRegistrationTaskInput{
			TemplateBody: new(keptBody), InputFileBucket: new("lines"), InputFileKey: new("in.ndjson"), RoleArn: new(templateRole),
		}, refused: invalid},
		{op: "UpdateCertificateProvider", in: &iot.UpdateCertificateProviderInput{
			CertificateProviderName: new("signs"), AccountDefaultForOperations: []types.CertificateProviderOperation{providerOperation},
		}, refused: notFound},
		{op: "UpdateProvisioningTemplate", in: &iot.UpdateProvisioningTemplateInput{TemplateName: new("joins"), Description: new("other"), DefaultVersionId: new(int32(1))}, refused: notFound},
		{op: "UpdateThing", in: &iot.UpdateThingInput{ThingName: new("pump"), AttributePayload: &merge}, refused: notFound},
		{op: "UpdateThingType", in: &iot.UpdateThingTypeInput{ThingTypeName: new("pumps"), ThingTypeProperties: &types.ThingTypeProperties{}}, refused: notFound},
		{op: "UpdateThingGroup", in: &iot.UpdateThingGroupInput{ThingGroupName: &site, ThingGroupProperties: &described}, refused: notFound},
		{op: "UpdateDynamicThingGroup", in: &iot.UpdateDynamicThingGroupInput{ThingGroupName: &low, ThingGroupProperties: &described}, refused: notFound},
		{op: "UpdateThingGroupsForThing", in: &iot.UpdateThingGroupsForThingInput{ThingName: new("pump"), ThingGroupsToAdd: []string{site}}, refused: notFound},
		{op: "CreatePolicyVersion", in: &iot.CreatePolicyVersionInput{PolicyName: new("may"), PolicyDocument: &document, SetAsDefault: true}, refused: notFound},
		{op: "SetDefaultPolicyVersion", in: &iot.SetDefaultPolicyVersionInput{PolicyName: new("may"), PolicyVersionId: new("1")}, refused: notFound},
		{op: "DeletePolicyVersion", in: &iot.DeletePolicyVersionInput{PolicyName: new("may"), PolicyVersionId: new("2")}, refused: notFound},
		{op: "UpdateAuthorizer", in: &iot.UpdateAuthorizerInput{AuthorizerName: new("gate"), TokenKeyName: &secret}, refused: notFound},
		{op: "DeprecateThingType", in: &iot.DeprecateThingTypeInput{ThingTypeName: new("pumps")}, refused: notFound},
		{op: "UpdateBillingGroup", in: &iot.UpdateBillingGroupInput{BillingGroupName: &bills, BillingGroupProperties: &types.BillingGroupProperties{}}, refused: notFound},
		{op: "UntagResource", in: &iot.UntagResourceInput{ResourceArn: new(scope + "billinggroup/bills"), TagKeys: []string{"kept"}}, refused: denied},

		{op: "DeleteConnection", in: connection(http.MethodDelete, "", ""), refused: notFound},
		{op: "DeleteThingShadow", in: &iotdataplane.DeleteThingShadowInput{ThingName: new("pump"), ShadowName: new("config")}, refused: notFound},
		{op: "DeleteThingShadow", in: &iotdataplane.DeleteThingShadowInput{ThingName: new("pump")}, refused: notFound},
		{op: "CancelCertificateTransfer", in: &iot.CancelCertificateTransferInput{CertificateId: &of.outID}, refused: notFound},
		{op: "DeleteRegistrationCode", in: &iot.DeleteRegistrationCodeInput{}, refused: notFound},
		{op: "UpdateCACertificate", in: &iot.UpdateCACertificateInput{CertificateId: &of.caID, NewStatus: types.CACertificateStatusInactive}, refused: notFound},
		{op: "DeleteCACertificate", in: &iot.DeleteCACertificateInput{CertificateId: &of.caID}, refused: notFound},
		{op: "DetachThingPrincipal", in: &iot.DetachThingPrincipalInput{ThingName: new("pump"), Principal: &cert}, refused: denied},
		{op: "DetachPolicy", in: &iot.DetachPolicyInput{PolicyName: new("may"), Target: new(scope + "thinggroup/site")}, refused: denied},
		{op: "DetachPolicy", in: &iot.DetachPolicyInput{PolicyName: new("may"), Target: &cert}, refused: denied},
		{op: "DetachPrincipalPolicy", in: &iot.DetachPrincipalPolicyInput{PolicyName: new("may"), Principal: &cert}, refused: denied},
		{op: "RemoveThingFromThingGroup", in: &iot.RemoveThingFromThingGroupInput{ThingArn: new(scope + "thing/pump"), ThingGroupArn: new(scope + "thinggroup/site")}, refused: denied},
		{op: "RemoveThingFromThingGroup", in: &iot.RemoveThingFromThingGroupInput{ThingName: new("pump"), ThingGroupName: &site}, refused: notFound},
		{op: "UpdateCertificate", in: &iot.UpdateCertificateInput{CertificateId: &certID, NewStatus: types.CertificateStatusInactive}, refused: notFound},
		{op: "DeleteCertificate", in: &iot.DeleteCertificateInput{CertificateId: &certID, ForceDelete: true}, refused: notFound},
		{op: "ClearDefaultAuthorizer", in: &iot.ClearDefaultAuthorizerInput{}, refused: notFound},
		{op: "UpdateAuthorizer", in: &iot.UpdateAuthorizerInput{AuthorizerName: new("gate"), Status: types.AuthorizerStatusInactive}, refused: notFound},
		{op: "DeleteAuthorizer", in: &iot.DeleteAuthorizerInput{AuthorizerName: new("gate")}, refused: notFound},
		{op: "RemoveThingFromBillingGroup", in: &iot.RemoveThingFromBillingGroupInput{ThingName: new("pump"), BillingGroupName: &bills}, refused: notFound},
		{op: "RemoveThingFromBillingGroup", in: &iot.RemoveThingFromBillingGroupInput{ThingArn: new(scope + "thing/pump"), BillingGroupArn: new(scope + "billinggroup/bills")}, refused: denied},
		{op: "DeleteBillingGroup", in: &iot.DeleteBillingGroupInput{BillingGroupName: &bills}},
		{op: "DeleteCertificateProvider", in: &iot.DeleteCertificateProviderInput{CertificateProviderName: new("signs")}, refused: notFound},
		{op: "DeleteProvisioningTemplateVersion", in: &iot.DeleteProvisioningTemplateVersionInput{TemplateName: new("joins"), VersionId: new(int32(2))}, refused: notFound},
		{op: "DeleteProvisioningTemplate", in: &iot.DeleteProvisioningTemplateInput{TemplateName: new("joins")}, refused: notFound},
		{op: "DeletePolicy", in: &iot.DeletePolicyInput{PolicyName: new("may")}, refused: notFound},
		{op: "DeleteDynamicThingGroup", in: &iot.DeleteDynamicThingGroupInput{ThingGroupName: &low}},
		{op: "DeleteThingGroup", in: &iot.DeleteThingGroupInput{ThingGroupName: &site}},
		{op: "DeleteThing", in: &iot.DeleteThingInput{ThingName: new("pump")}},
	}
}

// ownOnly are operations whose success the owner's run does not show, because
// something stands in their way that takes long; each is called all the same.
func ownOnly() map[string]string {
	return map[string]string{
		"StopThingRegistrationTask": "a task of few lines is over before anybody could stop it",
		"DeleteThingType":           "a type is deleted five minutes after it was deprecated",
		"AcceptCertificateTransfer": "a certificate is accepted by another account than the one that gives it",
		"RejectCertificateTransfer": "a certificate is rejected by another account than the one that gives it",
	}
}

// do calls an act and returns everything that came back and was sent.
func (n *neighbour) do(ctx context.Context, a act) (answer, sent string, err error) {
	if r, ok := a.in.(apiclient.Request); ok {
		answer, err = n.raw(ctx, r)
		if refusal, ok := errors.AsType[*apiclient.Error](err); ok {
			answer = refusal.Message
		}
		return answer, r.Path + string(r.Body), err
	}
	client, method := reflect.ValueOf(n.Client), a.op
	arguments := []reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(a.in)}
	if strings.Contains(reflect.TypeOf(a.in).Elem().PkgPath(), "iotdataplane") {
		client, method = reflect.ValueOf(n.data), a.op+"WithContext"
	}
	out := client.MethodByName(method).Call(arguments)
	err, _ = reflect.TypeAssert[error](out[1])
	_, message := answered(err)
	return shown(out[0]) + message, shown(reflect.ValueOf(a.in)), err
}

// shown is a value as text, payloads included, without what differs from call
// to call.
func shown(v reflect.Value) string {
	if v.IsNil() {
		return ""
	}
	var payload string
	if p := v.Elem().FieldByName("Payload"); p.IsValid() && p.Kind() == reflect.Slice {
		payload = string(p.Bytes())
		var document map[string]any
		if json.Unmarshal(p.Bytes(), &document) == nil {
			delete(document, "timestamp")
			text, _ := json.Marshal(document) // it was JSON
			payload = string(text)
		}
	}
	values := map[string]any{}
	for i := range v.Elem().NumField() {
		field := v.Elem().Type().Field(i)
		if field.IsExported() && field.Name != "ResultMetadata" && field.Name != "Timestamp" && field.Name != "Payload" {
			values[field.Name] = v.Elem().Field(i).Interface()
		}
	}
	text, err := json.Marshal(values)
	return fmt.Sprintf("%s%s%v", text, payload, err)
}

// code is the exception of an error, whoever's client made it.
func code(err error) string {
	if refusal, ok := errors.AsType[*apiclient.Error](err); ok {
		return refusal.Type
	}
	name, _ := answered(err)
	return name
}

// build makes an account of what acts build it of, with a second one of most
// kinds so that lists have two pages.
func (n *neighbour) build() {
	n.t.Helper()
	for _, a := range acts(n.t, n, n.secret) {
		if !a.builds {
			continue
		}
		if _, _, err := n.do(n.t.Context(), a); err != nil {
			n.t.Fatalf("%s: %s: %v", n.secret, a.op, err)
		}
	}
	second := &neighbour{operator: n.operator, api: n.api, account: n.account, arns: n.arns, secret: n.secret}
	for _, a := range []act{
		{op: "CreateThing", in: &iot.CreateThingInput{ThingName: new("pump2"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"kept": n.secret}}}},
		{op: "CreateThingType", in: &iot.CreateThingTypeInput{ThingTypeName: new("pumps2")}},
		{op: "CreateThingGroup", in: &iot.CreateThingGroupInput{ThingGroupName: new("site2")}},
		{op: "CreatePolicy", in: &iot.CreatePolicyInput{PolicyName: new("may2"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:Publish","Resource":"*"}]}`)}},
		{op: "CreateCertificateFromCsr", in: &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(csr(n.t, n.secret))}},
		{op: "AddThingToThingGroup", in: &iot.AddThingToThingGroupInput{ThingName: new("pump2"), ThingGroupName: new("site")}},
		{op: "Publish", in: &iotdataplane.PublishInput{Topic: new("plant/kept2"), Payload: []byte(n.secret), Retain: new(true)}},
	} {
		if _, _, err := second.do(n.t.Context(), a); err != nil {
			n.t.Fatalf("%s: %s: %v", n.secret, a.op, err)
		}
	}
}

// state is everything that the owner sees of its account.
func (n *neighbour) state() map[string]string {
	n.t.Helper()
	all := map[string]string{}
	for i, a := range acts(n.t, n, n.secret) {
		if !a.shows {
			continue
		}
		answer, _, err := n.do(n.t.Context(), a)
		if err != nil {
			n.t.Fatalf("%s: %s: %v", n.secret, a.op, err)
		}
		all[fmt.Sprintf("%03d %s", i, a.op)] = answer
	}
	return all
}

// device connects the account's device to its own endpoint.
func (h *neighbourhood) device(n *neighbour, o mqttclient.Options) *mqttclient.Client {
	h.t.Helper()
	return mqttDial(h.t, h.server.MQTTAddr, h.tlsAs(&n.cert, n.endpoint), o)
}

// TestIsolationOfOperations calls every operation that is offered with the names,
// ARNs and ids of another account. Nothing of it shows, and nothing of it changes.
func TestIsolationOfOperations(t *testing.T) {
	t.Parallel()
	h := newNeighbourhood(t)
	// The owner of a third account succeeds with every one of the calls, so that
	// what is refused to strangers is refused because they are strangers.
	owner := h.settle("gammasecret")
	owner.enlist()
	called := map[string]bool{}
	for _, a := range acts(t, owner, owner.secret) {
		if a.op == "GetThingConnectivityData" {
			c := h.device(owner, mqttclient.Options{ClientID: "pump"})
			if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "plant/#", QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		called[a.op] = true
		if _, _, err := owner.do(t.Context(), a); err != nil {
			t.Errorf("the owner: %s: %v", a.op, err)
		}
	}
	for op, is := range offered(t) {
		if is && !called[op] && ownOnly()[op] == "" {
			t.Errorf("%s: no case in acts: how would somebody call it on another account's resources?", op)
		}
	}

	victim := h.settle("alphasecret")
	victim.enlist()
	victim.build()
	victim.hire()
	victim.supply("solo-"+victim.secret, "w48-"+victim.secret, "w48-1")
	victim.supply("acme", "w47", "w47-1")
	victim.edit()
	victim.activate(h)
	h.server.Stop()
	before := h.dump(victim)
	h.server.Start()
	c := h.device(victim, mqttclient.Options{ClientID: "pump"})
	if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "plant/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	state := victim.state()
	check := func(kind string, a act, answer, sent string) {
		t.Helper()
		if marks := victim.leaks(answer, sent); len(marks) > 0 {
			t.Errorf("%s: %s shows %q: %s", kind, a.op, marks, answer)
		}
		if diff := cmp.Diff(state, victim.state()); diff != "" {
			t.Fatalf("%s: %s changed the other account:\n%s", kind, a.op, diff)
		}
	}
	have := offered(t)
	more := slices.DeleteFunc([]act{
		{op: "DeleteThingType", in: &iot.DeleteThingTypeInput{ThingTypeName: new("pumps")}, refused: notFound},
		{op: "StopThingRegistrationTask", in: &iot.StopThingRegistrationTaskInput{TaskId: &victim.taskID}, refused: notFound},
		{op: "AcceptCertificateTransfer", in: &iot.AcceptCertificateTransferInput{CertificateId: &victim.outID}, refused: notFound},
		{op: "RejectCertificateTransfer", in: &iot.RejectCertificateTransferInput{CertificateId: &victim.outID}, refused: notFound},
	}, func(a act) bool { return !have[a.op] })
	for _, a := range append(acts(t, victim, "betasecret"), more...) {
		stranger := h.settle("betasecret")
		answer, sent, err := stranger.do(t.Context(), a)
		if got := code(err); got != a.refused {
			t.Errorf("a stranger: %s: got %v, want %q", a.op, err, a.refused)
		}
		check("a stranger", a, answer, sent)
	}
	// One who has the same names sees its own.
	for _, a := range append(acts(t, victim, "betasecret"), more...) {
		namesake := h.settle("betasecret")
		namesake.build()
		answer, sent, err := namesake.do(t.Context(), a)
		if got := code(err); strings.Contains(got, "Internal") {
			t.Errorf("a namesake: %s: %v", a.op, err)
		}
		check("a namesake", a, answer, sent)
	}
	h.pageTokens(victim)
	h.uploadLinks(victim, func(answer, sent string) { check("an upload link", act{op: "PUT /uploads/allowlists"}, answer, sent) })
	h.otherOperations(victim, func(pattern, answer, sent string) { check("/ops/v1", act{op: pattern}, answer, sent) })
	select {
	case <-c.Done():
		t.Errorf("the other account's device lost its connection: %v", c.Err())
	default:
	}
	h.server.Stop()
	if diff := cmp.Diff(before, h.dump(victim)); diff != "" {
		t.Errorf("records of the other account changed:\n%s", diff)
	}
	// The comparisons notice what its owner does.
	h.server.Start()
	must(victim.operator, victim.UpdateThing, &iot.UpdateThingInput{ThingName: new("pump"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"a": "b"}}})
	if cmp.Equal(state, victim.state()) {
		t.Error("a change of the account is not noticed in its state")
	}
	h.server.Stop()
	if cmp.Equal(before, h.dump(victim)) {
		t.Error("a change of the account is not noticed in its records")
	}
}

// dump reads every record of an account from the store of a stopped server,
// without those about connections, which its own device writes, and without its
// audit trail, which grows by its owner's looking and by nobody else's calls.
func (h *neighbourhood) dump(of *neighbour) []string {
	h.t.Helper()
	text, err := h.server.Muster(h.t.Context(), "db", "get", "--data-dir", h.server.DataDir)
	if err != nil {
		h.t.Fatal(err)
	}
	var own []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "audit/"+of.account+"/") && strings.Contains(line, "betasecret") {
			h.t.Errorf("a stranger's call is in the account's audit trail: %s", line)
		}
		if strings.Contains(line, of.account) && !ofConnections(line) && !strings.HasPrefix(line, "audit") {
			own = append(own, line)
		}
	}
	if len(own) < 20 {
		h.t.Errorf("only %d records belong to account %s", len(own), of.account)
	}
	return own
}

// ofConnections reports whether a record is one that devices bring about by
// connecting.
func ofConnections(line string) bool {
	kind, _, _ := strings.Cut(line, "/")
	switch kind {
	case "connectivity", "connectivity-timer", "connectivity-count", "connectivity-latency",
		"ledger-anchor": // the audit trail is told every hour
		return true
	default:
		return strings.HasPrefix(line, "connection")
	}
}

// pageTokens carries the owner's page tokens to somebody who has the same names.
func (h *neighbourhood) pageTokens(of *neighbour) {
	h.t.Helper()
	thief := h.settle("betasecret")
	thief.build()
	carried := 0
	for _, a := range acts(h.t, of, of.secret) {
		if _, raw := a.in.(apiclient.Request); raw || !a.shows {
			continue
		}
		in := reflect.ValueOf(a.in).Elem()
		token, size := in.FieldByName("NextToken"), in.FieldByName("MaxResults")
		if !token.IsValid() {
			token = in.FieldByName("Marker")
		}
		if !size.IsValid() {
			size = in.FieldByName("PageSize")
		}
		if !token.IsValid() || !size.IsValid() {
			continue
		}
		one := reflect.New(size.Type().Elem())
		one.Elem().SetInt(1)
		size.Set(one)
		answer, _, err := of.do(h.t.Context(), a)
		if err != nil {
			h.t.Errorf("%s in pages: %v", a.op, err)
			continue
		}
		var next struct {
			NextToken  *string `json:"NextToken"`
			NextMarker *string `json:"NextMarker"`
		}
		if err := json.NewDecoder(strings.NewReader(answer)).Decode(&next); err != nil {
			h.t.Fatalf("%s: %v: %s", a.op, err, answer)
		}
		if next.NextToken == nil {
			next.NextToken = next.NextMarker
		}
		if next.NextToken == nil {
			continue
		}
		token.Set(reflect.ValueOf(next.NextToken))
		if _, _, err := of.do(h.t.Context(), a); err != nil {
			h.t.Errorf("%s: the owner's second page: %v", a.op, err)
		}
		answer, sent, err := thief.do(h.t.Context(), a)
		if code(err) != invalid || !strings.Contains(answer, "page token") {
			h.t.Errorf("%s with another account's token: %v", a.op, err)
		}
		if marks := of.leaks(answer, sent); len(marks) > 0 {
			h.t.Errorf("%s with another account's token shows %q: %s", a.op, marks, answer)
		}
		carried++
	}
	if carried < 8 {
		h.t.Errorf("only %d lists gave a token", carried)
	}
}

// linePlan is a provisioning plan, as JSON text.
func linePlan(check string) string {
	return `"id: line\nname: Line\nownershipCheck: ` + check + `\nstages:\n- {id: make, kind: MANUFACTURE, limit: 1s, actor: {role: Maker}, ` +
		`steps: [{id: test, title: Test, mode: MANUAL, instruction: Test it}]}\n"`
}

// hire gives an account operators, and a plan that a device follows.
func (n *neighbour) hire() {
	n.t.Helper()
	trust := `"trustPolicy":"{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"sts:AssumeRole\"}}"`
	for _, step := range [][3]string{
		{http.MethodPost, "users", `{"userName":"alice"}`},
		{http.MethodPost, "user-groups", `{"groupName":"crew"}`},
		{http.MethodPut, "user-groups/crew/users/alice", ""},
		{http.MethodPost, "roles", `{"roleName":"fixer","description":"` + n.secret + `",` + trust + `}`},
		{http.MethodPost, "access-policies", `{"policyName":"own","description":"` + n.secret + `","policyDocument":"{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"iot:ListThings\",\"Resource\":\"*\"}}"}`},
		{http.MethodPost, "bootstrap/assignments", `{"kind":"CERTIFICATE","certificateId":"` + n.certID + `","note":"` + n.secret + `"}`},
		{http.MethodPut, "approval-authorities/own", `{"kind":"USER_GROUP","userGroup":"crew"}`},
		{http.MethodPut, "approval-bindings/joins", `{"rule":"ANY_OF","authorities":["own"],"autoApproveIf":"parameters.kept:` + n.secret + `"}`},
		{http.MethodPost, "users/alice/access-keys", ""},
		{http.MethodPost, "plans", `{"planBody":` + linePlan(n.secret) + `}`},
		{http.MethodPost, "plans/line/publish", ""},
		{http.MethodPost, "onboarding", `{"deviceKey":"S-1","planId":"line"}`},
	} {
		answer, err := n.raw(n.t.Context(), apiclient.Request{Service: "iot", Method: step[0], Path: "/ops/v1/" + step[1], Body: []byte(step[2])})
		if err != nil {
			n.t.Fatalf("%v: %v", step, err)
		}
		var key struct {
			AccessKeyID string `json:"accessKeyId"`
		}
		if json.Unmarshal([]byte(answer), &key) == nil && key.AccessKeyID != "" {
			n.operatorKey = key.AccessKeyID
		}
	}
}

// activate lets the account's device connect for the first time, which is an event in
// its ledger.
func (n *neighbour) activate(h *neighbourhood) {
	n.t.Helper()
	h.device(n, mqttclient.Options{ClientID: "pump"})
	for range 200 {
		answer, err := n.raw(n.t.Context(), apiclient.Request{Service: "iot", Method: http.MethodGet, Path: "/ops/v1/ledger/pump"})
		if err != nil {
			n.t.Fatal(err)
		}
		if strings.Contains(answer, "ACTIVATED") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	n.t.Fatal("the device's ledger has no activation")
}

// supply gives an account a supplier with a list that is accepted, and an upload link
// for it.
func (n *neighbour) supply(supplier, list, serial string) {
	n.t.Helper()
	folder := n.t.TempDir()
	muster := func(args ...string) {
		n.t.Helper()
		if out, err := n.server.Muster(n.t.Context(), args...); err != nil {
			n.t.Fatalf("%v\n%s", err, out)
		}
	}
	muster("supplier", "keygen", "line-1", "--out", folder)
	path := filepath.Join(folder, list+".json")
	text := `{"v":1,"list":"` + list + `","model":"g2","issuedAt":"2026-11-20T08:00:00Z","entries":[{"serial":"` + serial + `","vetted":true,"batch":"` + n.secret + `"}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	muster("allowlist", "sign", "--key", filepath.Join(folder, "line-1.key"), "--kid", "line-1", path)
	signed, err := os.ReadFile(path + ".jws")
	if err != nil {
		n.t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(folder, "line-1.pub"))
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.api.PutSupplier(n.t.Context(), supplier, apiclient.Supplier{Name: n.secret, AcceptSigned: true}); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.api.PutSupplierKey(n.t.Context(), supplier, apiclient.SupplierKey{ID: "line-1", PublicKey: string(public)}); err != nil {
		n.t.Fatal(err)
	}
	made, err := n.api.UploadAllowList(n.t.Context(), apiclient.AllowListUpload{Supplier: supplier, List: list, Name: n.secret, Body: signed})
	if err != nil || made.Status != "ACCEPTED" {
		n.t.Fatalf("%+v, %v", made, err)
	}
	link, err := n.api.CreateAllowListLink(n.t.Context(), supplier, list, "")
	if err != nil {
		n.t.Fatal(err)
	}
	n.linkID, n.linkPath = link.ID, link.Path
}

// uploadLinks tries the account's link with another account in its path.
func (h *neighbourhood) uploadLinks(of *neighbour, check func(answer, sent string)) {
	h.t.Helper()
	namesake := h.settle("betasecret")
	namesake.supply("acme", "w47", "w47-1")
	_, secret, _ := strings.Cut(of.linkPath, of.linkID+"/")
	for _, path := range []string{
		strings.Replace(of.linkPath, of.account, namesake.account, 1),
		strings.Replace(namesake.linkPath, namesake.account, of.account, 1),
		strings.Replace(namesake.linkPath, namesake.account+"/"+namesake.linkID, of.account+"/"+of.linkID, 1),
		strings.TrimSuffix(of.linkPath, secret) + "x",
	} {
		answer, err := namesake.api.UploadByLink(h.t.Context(), path, apiclient.AllowListUpload{Body: []byte("serial,vetted\nx,true\n")})
		refusal, ok := errors.AsType[*apiclient.Error](err)
		if !ok || refusal.Status != http.StatusForbidden {
			h.t.Errorf("%s: %q, %v", path, answer, err)
		} else {
			answer = refusal.Message
		}
		check(answer, path)
	}
}

// keptBody makes one thing.
const keptBody = `{"Parameters":{"Kept":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing",
 "Properties":{"ThingName":"enlisted","AttributePayload":{"kept":{"Ref":"Kept"}}}}}}`

// enlist registers a thing from a file in a bucket of the account.
func (n *neighbour) enlist() {
	n.t.Helper()
	n.upload(filepath.Join(n.account, "lines"), "in.ndjson", `{"Kept":"`+n.secret+`"}`)
	n.taskID = *must(n.operator, n.StartThingRegistrationTask, &iot.StartThingRegistrationTaskInput{
		TemplateBody: new(keptBody), InputFileBucket: new("lines"), InputFileKey: new("in.ndjson"), RoleArn: new(templateRole),
	}).TaskId
	n.awaitTask(&n.taskID)
}

// edit makes an edit by query that finds everything as it wants it.
func (n *neighbour) edit() {
	n.t.Helper()
	o := apiclient.BulkOperation{SetAttributes: map[string]string{"kept": n.secret}}
	preview := func() string {
		p, err := n.api.PreviewBulkEdit(n.t.Context(), "thingName:*", o)
		if err != nil || p.Things == 0 {
			n.t.Fatalf("preview %+v, %v", p, err)
		}
		return p.ConfirmationToken
	}
	e, err := n.api.StartBulkEdit(n.t.Context(), "thingName:*", o, preview(), 0)
	if err != nil {
		n.t.Fatal(err)
	}
	n.bulkEdit, n.bulkToken = e.BulkEditID, preview()
	testkit.Poll(n.t, 20*time.Second, "the edit ends", func() error {
		e, err := n.api.DescribeBulkEdit(n.t.Context(), n.bulkEdit)
		if err == nil && e.Status != "COMPLETED" {
			err = fmt.Errorf("it is %s", e.Status)
		}
		return err
	})
}
