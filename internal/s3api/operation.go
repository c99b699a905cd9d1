package s3api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// operation is one of S3's.
type operation struct {
	// name is S3's, action the permission without its prefix.
	name, action string
	// reads is true for what changes nothing, onBucket for what is authorized on the
	// bucket although the request names an object.
	reads, onBucket bool
	// query are the parameters that it understands.
	query []string
	do    func(*call) error
}

// listQuery is what both versions of ListObjects understand.
func listQuery() []string {
	return []string{
		"list-type", "prefix", "delimiter", "max-keys", "marker", "start-after", "continuation-token", "encoding-type", "fetch-owner",
	}
}

// operation finds what a request asks for, and whether that is refused.
func (c *call) operation() (operation, error) {
	query := c.r.URL.Query()
	op, ok := c.candidate(query)
	if !ok {
		return operation{name: "UnknownOperation"}, problemf(http.StatusNotImplemented, "NotImplemented",
			"Muster offers buckets, objects and uploads in parts; %s of this address with these parameters is not among them", c.r.Method)
	}
	for name := range query {
		// x-id is the operation's name, which some clients add for proxies; a presigned
		// request has its signature in the query.
		if slices.Contains(op.query, name) || name == "x-id" || strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		return op, problemf(http.StatusNotImplemented, "NotImplemented", "The parameter %.64q of %s is not offered", name, op.name)
	}
	return op, c.refuseHeaders(op)
}

// candidate is the operation of method, address and the parameters that tell some
// of them apart.
func (c *call) candidate(query url.Values) (operation, bool) {
	switch {
	case c.bucket == "":
		return operation{name: "ListBuckets", action: "ListAllMyBuckets", reads: true, do: (*call).listBuckets}, c.r.Method == http.MethodGet
	case c.key == "":
		return c.onBucket(query)
	}
	return c.onObject(query)
}

func (c *call) onBucket(query url.Values) (operation, bool) {
	switch c.r.Method {
	case http.MethodPut:
		return operation{name: "CreateBucket", action: "CreateBucket", do: (*call).createBucket}, true
	case http.MethodHead:
		return operation{name: "HeadBucket", action: "ListBucket", reads: true, do: (*call).headBucket}, true
	case http.MethodDelete:
		return operation{name: "DeleteBucket", action: "DeleteBucket", do: (*call).deleteBucket}, true
	case http.MethodGet:
		switch {
		case query.Has("location"):
			return operation{name: "GetBucketLocation", action: "GetBucketLocation", reads: true, query: []string{"location"}, do: (*call).location}, true
		case query.Get("list-type") == "2":
			return operation{name: "ListObjectsV2", action: "ListBucket", reads: true, query: listQuery(), do: (*call).listObjects}, true
		}
		return operation{name: "ListObjects", action: "ListBucket", reads: true, query: listQuery(), do: (*call).listObjects}, true
	case http.MethodPost:
		return operation{name: "DeleteObjects", action: "DeleteObject", query: []string{"delete"}, do: (*call).deleteObjects}, query.Has("delete")
	}
	return operation{}, false
}

func (c *call) onObject(query url.Values) (operation, bool) {
	part, upload := query.Has("partNumber"), query.Has("uploadId")
	both := []string{"partNumber", "uploadId"}
	switch c.r.Method {
	case http.MethodPut:
		if part || upload {
			return operation{name: "UploadPart", action: "PutObject", query: both, do: (*call).uploadPart}, true
		}
		return operation{name: "PutObject", action: "PutObject", do: (*call).putObject}, true
	case http.MethodGet:
		return operation{name: "GetObject", action: "GetObject", reads: true, do: (*call).getObject}, true
	case http.MethodHead:
		return operation{name: "HeadObject", action: "GetObject", reads: true, do: (*call).getObject}, true
	case http.MethodDelete:
		if upload {
			return operation{name: "AbortMultipartUpload", action: "AbortMultipartUpload", query: both[1:], do: (*call).abort}, true
		}
		return operation{name: "DeleteObject", action: "DeleteObject", do: (*call).deleteObject}, true
	case http.MethodPost:
		if upload {
			return operation{name: "CompleteMultipartUpload", action: "PutObject", query: both[1:], do: (*call).complete}, true
		}
		return operation{name: "CreateMultipartUpload", action: "PutObject", query: []string{"uploads"}, do: (*call).begin}, query.Has("uploads")
	}
	return operation{}, false
}

// refuseHeaders refuses what a client wants to be kept or done and is not.
func (c *call) refuseHeaders(op operation) error {
	for name, values := range c.r.Header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-amz-") && lower != "if-match" && lower != "if-none-match" {
			continue
		}
		switch {
		case understood(lower), op.reads && strings.HasPrefix(lower, "if-"):
			continue
		case lower == "x-amz-acl" && (values[0] == "private" || values[0] == "bucket-owner-full-control"):
			continue // that is what it is
		case lower == "x-amz-storage-class" && values[0] == "STANDARD":
			continue
		}
		return problemf(http.StatusNotImplemented, "NotImplemented", "The header %.64q of %s is not offered", lower, op.name)
	}
	return nil
}

// understood are headers that mean something here, or nothing for an object.
func understood(lower string) bool {
	switch lower {
	case "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-user-agent", "x-amz-decoded-content-length", "x-amz-trailer",
		"x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-mp-object-size",
		"x-amz-expected-bucket-owner", "x-amz-request-payer", "x-amz-optional-object-attributes":
		return true
	}
	return strings.HasPrefix(lower, "x-amz-checksum-")
}
