// Package s3api serves the small part of Amazon S3 that puts files where
// registration tasks read them: buckets, objects, and objects that come in parts, as
// the AWS command line and the SDKs call it. Paths name bucket and key; names of
// hosts do not.
//
// What it does not have it refuses with NotImplemented, also headers that ask for
// something to be kept. It decides nothing: who calls is proved, and whether the
// caller may is asked, by functions of its Options. It starts no goroutines.
package s3api
