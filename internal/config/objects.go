package config

import "net/url"

// Objects are the buckets that files are read from.
type Objects struct {
	// Dir is empty for a folder in the data folder.
	Dir string
	// MaxBytes bounds an object that is written there.
	MaxBytes int64
	// S3URL is the address of a store that takes the folder's place.
	S3URL, S3Region, S3AccessKeyID, S3SecretFile, S3CAFile string
}

// validateObjects checks where buckets are.
func (s *Settings) validateObjects(c *checker) {
	o := &s.Objects
	c.require(o.MaxBytes >= 1<<20, "objects.max-bytes", "must be at least 1MiB")
	if o.S3URL == "" {
		c.require(o.S3AccessKeyID == "" && o.S3SecretFile == "" && o.S3CAFile == "", "objects.s3-url", "must be set when another setting of objects.s3 is")
		return
	}
	c.require(o.Dir == "", "objects.dir", "must be empty beside objects.s3-url: buckets are in one place")
	u, err := url.Parse(o.S3URL)
	whole := err == nil && u.Host != "" && u.User == nil && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
	c.require(whole && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname())), "objects.s3-url",
		"must be https://HOST[:PORT]; http is for this machine only")
	c.require(o.S3AccessKeyID != "", "objects.s3-access-key-id", "must be set for objects.s3-url")
	c.require(o.S3SecretFile != "", "objects.s3-secret-file", "must be set for objects.s3-url")
	c.require(regionPattern.MatchString(o.S3Region), "objects.s3-region", "%q is not a region name: lower-case letters, digits and hyphens", o.S3Region)
}
