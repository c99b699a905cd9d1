package s3api

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/objectstore"
)

// etag is an object's version in quotes. It is no digest of the object.
func etag(version string) string { return strconv.Quote(version) }

func (c *call) putObject() error {
	if c.r.Header.Get("X-Amz-Copy-Source") != "" {
		return problemf(http.StatusNotImplemented, "NotImplemented", "Copies are not offered")
	}
	sent, err := openBody(c.r)
	if err != nil {
		return err
	}
	info, err := c.o.Store.Put(c.r.Context(), c.account, c.bucket, c.key, sent)
	if err != nil {
		return err
	}
	c.w.Header().Set("Etag", etag(info.Version))
	return c.done(http.StatusOK)
}

// getObject serves GetObject and HeadObject, with ranges and conditions.
func (c *call) getObject() error {
	if err := c.o.Store.HasBucket(c.account, c.bucket); err != nil {
		return err
	}
	found, err := c.o.Store.Open(c.r.Context(), c.account, c.bucket, c.key)
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // it is read
	seeker, ok := found.ReadCloser.(io.ReadSeeker)
	if !ok {
		return errors.New("an object in a folder is a file")
	}
	c.trail.Finish()
	h := c.w.Header()
	h.Set("Etag", etag(found.Version))
	h.Set("Content-Type", "binary/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(c.w, c.r, "", modified(found.Version), seeker)
	return nil
}

// modified is the time in a version.
func modified(version string) time.Time {
	const base = 36
	text, _, _ := strings.Cut(version, "-")
	nanos, err := strconv.ParseInt(text, base, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

func (c *call) deleteObject() error {
	if err := c.o.Store.Delete(c.r.Context(), c.account, c.bucket, c.key); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// maxDocument bounds what lists objects or parts.
const maxDocument = 2 << 20

// document reads a request's XML, whose checksum is compared.
func (c *call) document(v any) error {
	sent, err := openBody(c.r)
	if err != nil {
		return err
	}
	if sent.length > maxDocument {
		return problemf(http.StatusBadRequest, "MalformedXML", "The document has more than %d bytes", maxDocument)
	}
	text, err := io.ReadAll(sent)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(text, v); err != nil {
		return problemf(http.StatusBadRequest, "MalformedXML", "The document is not well formed, or is another one")
	}
	return nil
}

// deleteObjects removes up to a thousand objects, each with a permission of its own.
func (c *call) deleteObjects() error {
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Objects []struct {
			Key string
		} `xml:"Object"`
	}
	if err := c.document(&in); err != nil {
		return err
	}
	if len(in.Objects) == 0 || len(in.Objects) > maxKeys {
		return problemf(http.StatusBadRequest, "MalformedXML", "Delete must have 1 to %d objects", maxKeys)
	}
	type failure struct{ Key, Code, Message string }
	type deleted struct{ Key string }
	var out struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Space   string   `xml:"xmlns,attr"`
		Deleted []deleted
		Error   []failure
	}
	out.Space = namespace
	for _, o := range in.Objects {
		one := *c
		one.key = o.Key
		err := c.o.Permit(c.r.Context(), "s3:DeleteObject", one.resource(operation{}))
		if err == nil {
			err = c.o.Store.Delete(c.r.Context(), c.account, c.bucket, o.Key)
		}
		switch {
		case errors.Is(err, objectstore.ErrNoBucket):
			return err
		case err != nil:
			p := c.problemOf(err)
			out.Error = append(out.Error, failure{o.Key, p.code, p.message})
		case !in.Quiet:
			out.Deleted = append(out.Deleted, deleted{o.Key})
		}
	}
	return c.answer(out)
}

// Objects that come in parts.

func (c *call) begin() error {
	id, err := c.o.Store.Begin(c.account, c.bucket, c.key)
	if err != nil {
		return err
	}
	return c.answer(struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Space    string   `xml:"xmlns,attr"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Space: namespace, Bucket: c.bucket, Key: c.key, UploadID: id})
}

func (c *call) uploadPart() error {
	query := c.r.URL.Query()
	number, err := strconv.Atoi(query.Get("partNumber"))
	if err != nil || number < 1 || number > objectstore.MaxParts {
		return problemf(http.StatusBadRequest, "InvalidArgument", "partNumber must be from 1 to %d", objectstore.MaxParts)
	}
	if c.r.Header.Get("X-Amz-Copy-Source") != "" {
		return problemf(http.StatusNotImplemented, "NotImplemented", "Copies are not offered")
	}
	sent, err := openBody(c.r)
	if err != nil {
		return err
	}
	version, err := c.o.Store.PutPart(c.r.Context(), c.account, c.bucket, c.key, query.Get("uploadId"), number, sent)
	if err != nil {
		return err
	}
	c.w.Header().Set("Etag", etag(version))
	return c.done(http.StatusOK)
}

func (c *call) complete() error {
	var in struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber int
			ETag       string
		} `xml:"Part"`
	}
	if err := c.document(&in); err != nil {
		return err
	}
	parts := make([]objectstore.Part, len(in.Parts))
	for i, p := range in.Parts {
		if i > 0 && p.PartNumber <= in.Parts[i-1].PartNumber {
			return problemf(http.StatusBadRequest, "InvalidPartOrder", "Parts must be listed in the order of their numbers")
		}
		parts[i] = objectstore.Part{Number: p.PartNumber, Version: strings.Trim(p.ETag, `"`)}
	}
	if len(parts) == 0 {
		return problemf(http.StatusBadRequest, "MalformedXML", "CompleteMultipartUpload must have a part")
	}
	info, err := c.o.Store.Complete(c.r.Context(), c.account, c.bucket, c.key, c.r.URL.Query().Get("uploadId"), parts)
	if err != nil {
		return err
	}
	return c.answer(struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Space    string   `xml:"xmlns,attr"`
		Location string
		Bucket   string
		Key      string
		ETag     string
	}{Space: namespace, Location: c.r.URL.Path, Bucket: c.bucket, Key: c.key, ETag: etag(info.Version)})
}

func (c *call) abort() error {
	if err := c.o.Store.Abort(c.account, c.bucket, c.key, c.r.URL.Query().Get("uploadId")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}
