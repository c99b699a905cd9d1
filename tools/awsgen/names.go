package main

import (
	"strings"
	"unicode"
)

// initialisms maps words of AWS names to the way Go writes them.
var initialisms = map[string]string{
	"Id": "ID", "Ids": "IDs", "Arn": "ARN", "Arns": "ARNs", "Url": "URL", "Http": "HTTP", "Https": "HTTPS",
	"Json": "JSON", "Ip": "IP", "Tls": "TLS", "Api": "API", "Uri": "URI", "Csr": "CSR", "Sql": "SQL",
	"Qos": "QoS", "Ttl": "TTL", "Ca": "CA", "Sns": "SNS", "Sqs": "SQS", "Vpc": "VPC", "Sha": "SHA", "Utf": "UTF",
	"Mqtt": "MQTT", "Jitp": "JITP", "Aws": "AWS", "Dns": "DNS", "Ocsp": "OCSP", "Cert": "Cert",
}

// goName turns a member or shape name into an exported Go name.
func goName(name string) string {
	var b strings.Builder
	for _, word := range words(name) {
		word = strings.ToUpper(word[:1]) + word[1:]
		if better, ok := initialisms[word]; ok {
			word = better
		}
		b.WriteString(word)
	}
	return b.String()
}

// words splits a camel-case name before each capital that follows a small
// letter or digit, and before the last capital of a run of capitals.
func words(name string) []string {
	var out []string
	runes := []rune(name)
	start := 0
	for i := 1; i < len(runes); i++ {
		upper := unicode.IsUpper(runes[i])
		afterSmall := !unicode.IsUpper(runes[i-1])
		beforeSmall := i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if upper && (afterSmall || beforeSmall) {
			out = append(out, string(runes[start:i]))
			start = i
		}
	}
	return append(out, string(runes[start:]))
}
