#!/bin/sh
# What an operator types in a day, with the AWS command line as it comes: from
# an empty installation to a device at work, through changes and trouble, and
# back to nothing. AWS_ENDPOINT is the server's address, the current folder is
# empty. Every answer is looked at; the first wrong one ends the script.
set -eu

aws() { command aws --endpoint-url "$AWS_ENDPOINT" "$@"; }

# is GOT WANT
is() { [ "$1" = "$2" ] || { echo "got '$1', want '$2'" >&2; exit 1; }; }

# refused TEXT COMMAND...: the command fails and says TEXT.
refused() {
	text=$1
	shift
	if answer=$("$@" 2>&1); then echo "not refused: $*" >&2; exit 1; fi
	case $answer in *"$text"*) ;; *) echo "refused with: $answer; want $text" >&2; exit 1 ;; esac
}

arn=arn:aws:iot:us-east-1:000000000000

echo "== who and where"
is "$(aws sts get-caller-identity --query Account --output text)" 000000000000
aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text

echo "== the shape of the fleet"
aws iot create-thing-type --thing-type-name Pump \
	--thing-type-properties 'thingTypeDescription=district pump,searchableAttributes=site,hw' --tags Key=team,Value=north
aws iot create-billing-group --billing-group-name ops --billing-group-properties billingGroupDescription=operations
aws iot create-thing-group --thing-group-name plant
aws iot create-thing-group --thing-group-name leeds --parent-group-name plant \
	--thing-group-properties 'thingGroupDescription=Leeds works,attributePayload={attributes={owner=team-n}}'
aws iot create-thing-group --thing-group-name york --parent-group-name plant
is "$(aws iot list-thing-groups --parent-group plant --query 'thingGroups[].groupName' --output text)" "leeds	york"
aws iot create-dynamic-thing-group --thing-group-name hot --query-string 'shadow.reported.temp>80'

echo "== what devices may do"
cat > device.json <<EOF
{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"$arn:client/\${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":"iot:Publish","Resource":"$arn:topic/plant/\${iot:Connection.Thing.Attributes[site]}/*"}]}
EOF
aws iot create-policy --policy-name device --policy-document file://device.json
aws iot attach-policy --policy-name device --target "$arn:thinggroup/plant"
refused MalformedPolicy aws iot create-policy --policy-name broken --policy-document '{"Version":"2012-10-17","Statement":{}}'

echo "== one device"
certificate=$(aws iot create-keys-and-certificate --set-as-active --certificate-pem-outfile cert.pem --private-key-outfile key.pem \
	--query certificateArn --output text)
id=${certificate##*/}
aws iot create-thing --thing-name pump-1 --thing-type-name Pump --billing-group-name ops \
	--attribute-payload 'attributes={site=leeds,hw=r2}'
aws iot attach-thing-principal --thing-name pump-1 --principal "$certificate"
aws iot add-thing-to-thing-group --thing-name pump-1 --thing-group-name leeds
is "$(aws iot describe-thing --thing-name pump-1 --query '[thingTypeName,billingGroupName,version]' --output text)" "Pump	ops	1"
is "$(aws iot get-effective-policies --thing-name pump-1 --principal "$certificate" --query 'effectivePolicies[].policyName' --output text)" device
decide() {
	aws iot test-authorization --principal "$certificate" --client-id pump-1 \
		--auth-infos "actionType=PUBLISH,resources=$arn:topic/plant/$1/t" --query 'authResults[0].authDecision' --output text
}
is "$(decide leeds)" ALLOWED
is "$(decide york)" IMPLICIT_DENY

echo "== find it again"
is "$(aws iot list-things --thing-type-name Pump --query 'things[].thingName' --output text)" pump-1
is "$(aws iot list-things --attribute-name site --attribute-value lee --use-prefix-attribute-value --query 'things[].thingName' --output text)" pump-1
is "$(aws iot list-thing-principals --thing-name pump-1 --query 'principals[]' --output text)" "$certificate"
is "$(aws iot list-principal-things --principal "$certificate" --query 'things[]' --output text)" pump-1
is "$(aws iot list-thing-groups-for-thing --thing-name pump-1 --query 'thingGroups[].groupName' --output text)" leeds
is "$(aws iot list-things-in-thing-group --thing-group-name plant --recursive --query 'things[]' --output text)" pump-1
is "$(aws iot list-things-in-billing-group --billing-group-name ops --query 'things[]' --output text)" pump-1
aws iot tag-resource --resource-arn "$arn:thinggroup/leeds" --tags Key=shift,Value=night
is "$(aws iot list-tags-for-resource --resource-arn "$arn:thinggroup/leeds" --query 'tags[].Value' --output text)" night
aws iot untag-resource --resource-arn "$arn:thinggroup/leeds" --tag-keys shift

echo "== its shadow and the index"
printf '{"state":{"desired":{"led":"on"},"reported":{"temp":90}}}' > update.json
aws iot-data update-thing-shadow --thing-name pump-1 --payload fileb://update.json shadow.json
aws iot-data get-thing-shadow --thing-name pump-1 shadow.json
grep -q '"temp":90' shadow.json
tries=0
until [ "$(aws iot search-index --query-string 'thingGroupNames:hot' --query 'things[].thingName' --output text)" = pump-1 ]; do
	tries=$((tries + 1))
	[ $tries -lt 20 ] || { echo "pump-1 never became hot" >&2; exit 1; }
done
is "$(aws iot describe-thing-group --thing-group-name hot --query '[queryString,status]' --output text)" "shadow.reported.temp>80	ACTIVE"

echo "== it moves"
aws iot update-thing --thing-name pump-1 --attribute-payload 'attributes={site=york},merge=true' --expected-version 1
refused VersionConflict aws iot update-thing --thing-name pump-1 --attribute-payload 'attributes={site=hull},merge=true' --expected-version 1
aws iot update-thing-groups-for-thing --thing-name pump-1 --thing-groups-to-remove leeds --thing-groups-to-add york
is "$(decide york)" ALLOWED

echo "== a policy gets a new version, and the old one back"
sed 's,topic/plant,topic/works,' device.json > works.json
is "$(aws iot create-policy-version --policy-name device --policy-document file://works.json --set-as-default --query policyVersionId --output text)" 2
is "$(decide york)" IMPLICIT_DENY
is "$(aws iot list-policy-versions --policy-name device --query 'policyVersions[?isDefaultVersion].versionId' --output text)" 2
aws iot set-default-policy-version --policy-name device --policy-version-id 1
is "$(decide york)" ALLOWED
aws iot delete-policy-version --policy-name device --policy-version-id 2
is "$(aws iot get-policy --policy-name device --query defaultVersionId --output text)" 1
is "$(aws iot list-targets-for-policy --policy-name device --query 'targets[]' --output text)" "$arn:thinggroup/plant"
is "$(aws iot list-attached-policies --target "$arn:thinggroup/york" --recursive --query 'policies[].policyName' --output text)" device

echo "== a supplier's authority"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/O=Acme/CN=Acme devices' \
	-addext basicConstraints=critical,CA:TRUE 2> openssl.log
code=$(aws iot get-registration-code --query registrationCode --output text)
openssl req -newkey rsa:2048 -nodes -keyout proof.key -out proof.csr -subj "/CN=$code" 2>> openssl.log
openssl x509 -req -in proof.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out proof.pem -days 30 2>> openssl.log
authority=$(aws iot register-ca-certificate --ca-certificate file://ca.pem --verification-cert file://proof.pem --set-as-active \
	--query certificateId --output text)
openssl req -newkey rsa:2048 -nodes -keyout theirs.key -out theirs.csr -subj '/CN=pump-2' 2>> openssl.log
openssl x509 -req -in theirs.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out theirs.pem -days 30 2>> openssl.log
theirs=$(aws iot register-certificate --certificate-pem file://theirs.pem --ca-certificate-pem file://ca.pem --set-as-active \
	--query certificateId --output text)
is "$(aws iot list-ca-certificates --query 'certificates[].certificateId' --output text)" "$authority"
is "$(aws iot list-certificates-by-ca --ca-certificate-id "$authority" --query 'certificates[].certificateId' --output text)" "$theirs"
is "$(aws iot describe-certificate --certificate-id "$theirs" --query certificateDescription.caCertificateId --output text)" "$authority"
refused CertificateState aws iot delete-certificate --certificate-id "$theirs"

echo "== events"
aws iot update-event-configurations --event-configurations 'THING={Enabled=true}'
is "$(aws iot describe-event-configurations --query 'eventConfigurations.THING.Enabled' --output text)" True

echo "== out of service"
aws iot update-certificate --certificate-id "$id" --new-status INACTIVE
aws iot detach-thing-principal --thing-name pump-1 --principal "$certificate"
aws iot delete-certificate --certificate-id "$id"
aws iot remove-thing-from-thing-group --thing-name pump-1 --thing-group-name york
aws iot delete-thing --thing-name pump-1
refused ResourceNotFound aws iot describe-thing --thing-name pump-1
aws iot update-certificate --certificate-id "$theirs" --new-status REVOKED
aws iot delete-certificate --certificate-id "$theirs"
aws iot update-ca-certificate --certificate-id "$authority" --new-status INACTIVE
aws iot delete-ca-certificate --certificate-id "$authority"
refused DeleteConflict aws iot delete-policy --policy-name device
aws iot detach-policy --policy-name device --target "$arn:thinggroup/plant"
aws iot delete-policy --policy-name device
for group in leeds york plant; do aws iot delete-thing-group --thing-group-name $group; done
aws iot delete-dynamic-thing-group --thing-group-name hot
aws iot delete-billing-group --billing-group-name ops
aws iot deprecate-thing-type --thing-type-name Pump
refused "deprecated less than" aws iot delete-thing-type --thing-type-name Pump
is "$(aws iot list-things --query 'length(things)' --output text)" 0
is "$(aws iot list-certificates --query 'length(certificates)' --output text)" 0
echo "== done"
