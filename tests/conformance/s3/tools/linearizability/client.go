// A minimal S3 client that never repeats a request: a library's silent retry would turn an unknown outcome into a wrong history.
package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"
)

type s3Client struct {
	endpoint, access, secret, region string
	http                             *http.Client
}

func newClient(endpoint, access, secret, region string) *s3Client {
	return &s3Client{strings.TrimRight(endpoint, "/"), access, secret, region, &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
	}}
}

// errNotSent: the request cannot have reached the server. Every other error leaves its outcome open.
var errNotSent = errors.New("not sent")

type answer struct {
	status int
	etag   string
	body   []byte
}

func (c *s3Client) do(method, path string, query url.Values, headers map[string]string, body []byte) (answer, error) {
	target := c.endpoint + path
	if len(query) > 0 {
		target += "?" + strings.ReplaceAll(query.Encode(), "+", "%20")
	}
	request, err := http.NewRequestWithContext(context.Background(), method, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body == nil {
		request.Body = http.NoBody
		request.ContentLength = 0
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	sum := sha256.Sum256(body)
	request.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	request = signer.SignV4(*request, c.access, c.secret, "", c.region)
	response, err := c.http.Do(request)
	if err != nil {
		var operation *net.OpError
		if errors.As(err, &operation) && operation.Op == "dial" {
			return answer{}, fmt.Errorf("%w: %v", errNotSent, err)
		}
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{response.StatusCode, strings.Trim(response.Header.Get("ETag"), `"`), content}, nil
}

// A value is its name, padded with a pattern of it, so that mixed or cut contents show.
func content(value string, size int) []byte {
	pattern := []byte(value + "\n")
	for len(pattern) < size {
		pattern = append(pattern, pattern...)
	}
	if size < len(value)+1 {
		size = len(value) + 1
	}
	return pattern[:size]
}

// The size of a value follows from its name: mostly tiny, some packed, a few striped.
func sizeOf(value string) int {
	switch sum := md5.Sum([]byte(value)); {
	case sum[0] < 8:
		return 1200 << 10
	case sum[0] < 40:
		return 20 << 10
	}
	return 0
}

func valueOf(body []byte) (string, error) {
	name, _, complete := bytes.Cut(body, []byte("\n"))
	value := string(name)
	if !complete || !bytes.Equal(body, content(value, sizeOf(value))) {
		return "", fmt.Errorf("content of %d bytes beginning %.40q is not what was written", len(body), body)
	}
	return value, nil
}

type listing struct {
	Contents []struct {
		Key  string
		ETag string
	}
	IsTruncated bool
}

// list returns the ETag of each key under the prefix.
func (c *s3Client) list(bucket, prefix string) (map[string]string, int, error) {
	got, err := c.do("GET", "/"+bucket+"/", url.Values{"list-type": {"2"}, "prefix": {prefix}}, nil, nil)
	if err != nil || got.status != 200 {
		return nil, got.status, err
	}
	var page listing
	if err := xml.Unmarshal(got.body, &page); err != nil {
		return nil, got.status, err
	}
	if page.IsTruncated {
		return nil, got.status, errors.New("a listing of a handful of keys is truncated")
	}
	etags := map[string]string{}
	for _, item := range page.Contents {
		etags[item.Key] = strings.Trim(item.ETag, `"`)
	}
	return etags, got.status, nil
}
