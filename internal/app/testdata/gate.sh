#!/bin/sh
# A function of a custom authorizer: lets in who says "open", as token or as
# password, and hangs, dies or lies on demand.
input=$(cat)
case "$input" in
*'"token":"hang"'*) sleep 300 ;;
*'"token":"die"'*) exit 1 ;;
*'"token":"lie"'*) echo '{"isAuthenticated":true,"principalId":"not a principal"}' ;;
*'"token":"open"'* | *'"password":"b3Blbg=="'*)
	echo '{"isAuthenticated":true,"principalId":"gatekeeper","disconnectAfterInSeconds":3600,"refreshAfterInSeconds":300,"policyDocuments":[
		{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/pump-*"},
			{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/plant/${iot:ClientId}/*"},
			{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/http"},
			{"Effect":"Allow","Action":["iot:GetThingShadow","iot:UpdateThingShadow"],"Resource":"arn:aws:iot:us-east-1:000000000000:thing/pump-7"}]}]}'
	;;
*) echo '{"isAuthenticated":false}' ;;
esac
