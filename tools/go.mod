module github.com/muster-iot/muster/tools

go 1.26.0

require (
	github.com/aws/aws-sdk-go v1.55.8
	github.com/aws/aws-sdk-go-v2/service/iot v1.75.0
)

require github.com/aws/smithy-go v1.26.0 // indirect
