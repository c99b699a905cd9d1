package s3api

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/objectstore"
)

// timeLayout is how S3 writes times.
const timeLayout = "2006-01-02T15:04:05.000Z"

func stamp(at time.Time) string { return at.UTC().Format(timeLayout) }

func (c *call) createBucket() error {
	// A body can name a region, which there is one of.
	const longest = 4 << 10
	var wish struct {
		XMLName  xml.Name `xml:"CreateBucketConfiguration"`
		Location string   `xml:"LocationConstraint"`
	}
	text, err := io.ReadAll(io.LimitReader(c.r.Body, longest))
	if err != nil {
		return problemf(http.StatusBadRequest, "IncompleteBody", "The body broke off")
	}
	if len(text) > 0 {
		if err := xml.Unmarshal(text, &wish); err != nil {
			return problemf(http.StatusBadRequest, "MalformedXML", "The body is no CreateBucketConfiguration")
		}
	}
	if wish.Location != "" && wish.Location != c.o.Region {
		return problemf(http.StatusBadRequest, "InvalidLocationConstraint", "The one region here is %s", c.o.Region)
	}
	if err := c.o.Store.CreateBucket(c.account, c.bucket); err != nil {
		return err
	}
	c.w.Header().Set("Location", "/"+c.bucket)
	return c.done(http.StatusOK)
}

func (c *call) headBucket() error {
	if err := c.o.Store.HasBucket(c.account, c.bucket); err != nil {
		return err
	}
	c.w.Header().Set("X-Amz-Bucket-Region", c.o.Region)
	return c.done(http.StatusOK)
}

func (c *call) deleteBucket() error {
	if err := c.o.Store.DeleteBucket(c.account, c.bucket); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (c *call) location() error {
	if err := c.o.Store.HasBucket(c.account, c.bucket); err != nil {
		return err
	}
	// As on S3, the first region has an empty name.
	place := c.o.Region
	if place == "us-east-1" {
		place = ""
	}
	return c.answer(struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Space   string   `xml:"xmlns,attr"`
		Place   string   `xml:",chardata"`
	}{Space: namespace, Place: place})
}

type owner struct {
	ID string
}

func (c *call) listBuckets() error {
	found, err := c.o.Store.Buckets(c.account)
	if err != nil {
		return err
	}
	type bucket struct {
		Name         string
		CreationDate string
	}
	var out struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Space   string   `xml:"xmlns,attr"`
		Owner   owner
		Buckets []bucket `xml:"Buckets>Bucket"`
	}
	out.Space, out.Owner.ID = namespace, string(c.account)
	for _, b := range found {
		out.Buckets = append(out.Buckets, bucket{b.Name, stamp(b.Created)})
	}
	return c.answer(out)
}

// listed is one object of a list.
type listed struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
}

// objectList is the answer of both versions of ListObjects.
type objectList struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Space                 string   `xml:"xmlns,attr"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	Marker                *string
	NextMarker            string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int
	MaxKeys               int
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []listed
	CommonPrefixes        []commonPrefix
}

type commonPrefix struct{ Prefix string }

// maxKeys is the most that one page of a list has.
const maxKeys = 1000

func (c *call) listObjects() error {
	query := c.r.URL.Query()
	out := objectList{
		Space: namespace, Name: c.bucket, Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), MaxKeys: maxKeys, EncodingType: query.Get("encoding-type"),
	}
	if text := query.Get("max-keys"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return problemf(http.StatusBadRequest, "InvalidArgument", "max-keys must be a number from 0")
		}
		out.MaxKeys = min(n, maxKeys)
	}
	if out.EncodingType != "" && out.EncodingType != "url" {
		return problemf(http.StatusBadRequest, "InvalidArgument", "encoding-type must be url")
	}
	second := query.Get("list-type") == "2"
	after := query.Get("marker")
	if second {
		out.StartAfter, out.ContinuationToken = query.Get("start-after"), query.Get("continuation-token")
		after = max(out.StartAfter, out.ContinuationToken)
	} else {
		out.Marker = &after
	}
	found, err := c.o.Store.List(c.r.Context(), c.account, c.bucket, out.Prefix)
	if err != nil {
		return err
	}
	last := out.fill(found, after)
	switch {
	case !out.IsTruncated:
	case second:
		out.NextContinuationToken = last
	default:
		out.NextMarker = last
	}
	if second {
		out.KeyCount = new(len(out.Contents) + len(out.CommonPrefixes))
	}
	if out.EncodingType != "" {
		out.escape()
	}
	return c.answer(out)
}

// fill takes the first page behind after and returns the place that it ends at.
func (l *objectList) fill(found []objectstore.Info, after string) (last string) {
	for _, o := range found {
		place := o.Key
		common := false
		if rest := strings.TrimPrefix(o.Key, l.Prefix); l.Delimiter != "" {
			if i := strings.Index(rest, l.Delimiter); i >= 0 {
				place, common = l.Prefix+rest[:i+len(l.Delimiter)], true
			}
		}
		if place <= after || common && place == last {
			continue
		}
		if len(l.Contents)+len(l.CommonPrefixes) == l.MaxKeys {
			l.IsTruncated = l.MaxKeys > 0
			return last
		}
		if last = place; common {
			l.CommonPrefixes = append(l.CommonPrefixes, commonPrefix{place})
			continue
		}
		l.Contents = append(l.Contents, listed{Key: o.Key, LastModified: stamp(o.Modified), ETag: etag(o.Version), Size: o.Size, StorageClass: "STANDARD"})
	}
	return last
}

// escape encodes what XML may not be able to carry.
func (l *objectList) escape() {
	encode := func(text *string) { *text = strings.ReplaceAll(url.QueryEscape(*text), "%2F", "/") }
	for i := range l.Contents {
		encode(&l.Contents[i].Key)
	}
	for i := range l.CommonPrefixes {
		encode(&l.CommonPrefixes[i].Prefix)
	}
	for _, text := range []*string{&l.Prefix, &l.Delimiter, &l.StartAfter, &l.NextMarker} {
		encode(text)
	}
	if l.Marker != nil {
		encode(l.Marker)
	}
}
