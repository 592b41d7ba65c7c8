"""A minimal S3 client on the standard library: the harness's own, for what happens around the suites (buckets, clean-up)."""
import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse
import xml.etree.ElementTree as ElementTree


class S3Error(Exception):
    def __init__(self, status, body):
        super().__init__(f"status {status}: {body[:300]!r}")
        self.status = status


class S3:
    """Confined to one thread."""

    def __init__(self, endpoint, access_key, secret_key, region="us-east-1"):
        self.url = urllib.parse.urlsplit(endpoint)
        self.access_key, self.secret_key, self.region = access_key, secret_key, region

    def request(self, method, path, query=None, body=b"", headers=None, bare=False):
        """Signs and sends; returns (headers, body), raises S3Error for a status of 300 and above. bare: names without a value are sent without '='."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        quoted = urllib.parse.quote(path, safe="/-_.~")
        query_string = "&".join(f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(str(v), safe='-_.~')}"
                                for k, v in sorted((query or {}).items()))
        signed = {"host": self.url.netloc, "x-amz-date": now, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        signed.update({k.lower(): v for k, v in (headers or {}).items()})
        names = ";".join(sorted(signed))
        canonical = "\n".join([method, quoted, query_string, *[f"{k}:{signed[k]}" for k in sorted(signed)], "", names,
                               signed["x-amz-content-sha256"]])
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + self.secret_key).encode()
        for part in (now[:8], self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        signed["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, "
                                   f"Signature={signature}")
        if self.url.scheme == "https":  # loopback with a certificate made for the test
            connection = http.client.HTTPSConnection(self.url.netloc, timeout=60, context=ssl._create_unverified_context())
        else:
            connection = http.client.HTTPConnection(self.url.netloc, timeout=60)
        try:
            sent = "&".join(p.removesuffix("=") for p in query_string.split("&")) if bare else query_string
            connection.request(method, quoted + ("?" + sent if sent else ""), body=body, headers=signed)
            response = connection.getresponse()
            content = response.read()
            if response.status >= 300:
                raise S3Error(response.status, content)
            return response.headers, content
        finally:
            connection.close()

    def create_bucket(self, bucket):
        self.request("PUT", f"/{bucket}")

    def set_versioning(self, bucket):
        body = (b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>'
                b"</VersioningConfiguration>")
        self.request("PUT", f"/{bucket}", {"versioning": ""}, body)

    def buckets(self):
        return [e.text for e in _elements(self.request("GET", "/")[1], "Name")]

    def remove_bucket(self, bucket):
        """Deletes a bucket with everything in it: open uploads, versions, delete markers. For test buckets only."""
        for uploads in self._pages(bucket, {"uploads": ""}, "Upload"):
            for upload in uploads:
                self._try("DELETE", f"/{bucket}/{upload['Key']}", {"uploadId": upload["UploadId"]})
        for tags in ("Version", "DeleteMarker"):
            for versions in self._pages(bucket, {"versions": ""}, tags):
                for version in versions:
                    self._try("DELETE", f"/{bucket}/{version['Key']}", {"versionId": version["VersionId"]})
        for objects in self._pages(bucket, {"list-type": "2"}, "Contents"):  # what a server without versions kept
            for item in objects:
                self._try("DELETE", f"/{bucket}/{item['Key']}")
        self._try("DELETE", f"/{bucket}")

    def _try(self, method, path, query=None):
        try:
            self.request(method, path, query)
        except (S3Error, OSError):
            pass  # clean-up is best effort; buckets of one run never meet those of another

    def _pages(self, bucket, query, tag):
        """Lists from the start until nothing more can be removed; the caller deletes what each page names."""
        before = None
        while True:
            try:
                page = self.request("GET", f"/{bucket}", {**query, "encoding-type": "url"})[1]
            except (S3Error, OSError):
                return
            items = [{c.tag.split("}")[-1]: urllib.parse.unquote(c.text or "") for c in e} for e in _elements(page, tag)]
            if not items or items == before:
                return
            before = items
            yield items


def _elements(document, tag):
    return [e for e in ElementTree.fromstring(document).iter() if e.tag.split("}")[-1] == tag]
