package sigv4

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// form is what of the canonical request clients choose differently: how they
// normalize the path, what belongs to the query, which host they mean.
type form struct{ host, path, query string }

// canonicalRequest renders the text that is signed.
func canonicalRequest(r *http.Request, f form, signed []string, payloadHash string) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	b.WriteString(f.path)
	b.WriteByte('\n')
	b.WriteString(f.query)
	b.WriteByte('\n')
	for _, name := range signed {
		b.WriteString(name)
		b.WriteByte(':')
		if name == "host" {
			b.WriteString(f.host)
		} else {
			b.WriteString(headerValue(r, name))
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(signed, ";"))
	b.WriteByte('\n')
	b.WriteString(payloadHash)
	return b.String()
}

// sentHost returns the host that a request names.
func sentHost(r *http.Request) string {
	if r.Host == "" && r.URL != nil {
		return r.URL.Host
	}
	return r.Host
}

// headerValue joins a header's values, each without surplus blanks. The length
// is a field of a request rather than a header.
func headerValue(r *http.Request, name string) string {
	values := r.Header.Values(name)
	if name == "content-length" && len(values) == 0 && r.ContentLength >= 0 {
		return strconv.FormatInt(r.ContentLength, 10)
	}
	folded := make([]string, len(values))
	for i, value := range values {
		folded[i] = strings.Join(strings.Fields(value), " ")
	}
	return strings.Join(folded, ",")
}

// sentPath returns the path as it travelled, still escaped.
func sentPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	if path == "" {
		return "/"
	}
	return path
}

// canonicalPaths returns the forms of the path that clients sign: as sent,
// and, where that differs, with empty and dot segments removed as botocore
// does. All services but s3 escape the escaped path once more.
func canonicalPaths(service, path string) []string {
	if service == serviceS3 {
		return []string{path}
	}
	paths := []string{escape(path, true)}
	if clean := normalize(path); clean != path {
		paths = append(paths, escape(clean, true))
	}
	return paths
}

// normalize removes empty and dot segments and keeps a final slash.
func normalize(path string) string {
	var kept []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	clean := "/" + strings.Join(kept, "/")
	if strings.HasSuffix(path, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// canonicalQuery sorts the parameters, but for those left out, and escapes them
// in the one way that signing demands.
func canonicalQuery(raw string, without ...string) (string, error) {
	if raw == "" {
		return "", nil
	}
	var pairs []string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := url.QueryUnescape(name)
		if err != nil {
			return "", fmt.Errorf("%w: query has a bad escape", ErrIncomplete)
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return "", fmt.Errorf("%w: query has a bad escape", ErrIncomplete)
		}
		if slices.Contains(without, n) {
			continue
		}
		// The tab sorts before every escaped character, so that names sort
		// before values.
		pairs = append(pairs, escape(n, false)+"\t"+escape(v, false))
	}
	slices.Sort(pairs)
	for i, pair := range pairs {
		pairs[i] = strings.Replace(pair, "\t", "=", 1)
	}
	return strings.Join(pairs, "&"), nil
}

// escape percent-encodes everything but the unreserved characters and, if
// asked, the slash.
func escape(text string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(text))
	for i := range len(text) {
		c := text[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
		if plain || keepSlash && c == '/' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}
