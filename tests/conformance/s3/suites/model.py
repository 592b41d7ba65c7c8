"""Every operation of today's S3 model, as botocore describes it: what Quarry does not implement is refused, and changes nothing.

The model is fetched anew (what SDKs will send tomorrow is in it first); without a network the one of the installed botocore is walked. Each
operation is sent raw and signed, with a body, as SDKs write its method, path and query, and with all its query parameters.
"""
import gzip
import json
import pathlib
import re
import subprocess

from lib import environment
from lib.s3 import S3Error

CASES_MIN = 100

IMPLEMENTED = set("""
AbortMultipartUpload CompleteMultipartUpload CopyObject CreateBucket CreateMultipartUpload DeleteBucket DeleteBucketTagging DeleteObject
DeleteObjectTagging DeleteObjects GetBucketAcl GetBucketLocation GetBucketTagging GetBucketVersioning GetObject GetObjectAcl
GetObjectAttributes GetObjectTagging HeadBucket HeadObject ListBuckets ListMultipartUploads ListObjectVersions ListObjects ListObjectsV2
ListParts PutBucketTagging PutBucketVersioning PutObject PutObjectTagging UploadPart UploadPartCopy""".split())
# Read as S3 answers of a bucket that has none of it: 404, or an empty document.
READ_AS_UNSET = set("""
GetBucketAccelerateConfiguration GetBucketCors GetBucketEncryption GetBucketLifecycle GetBucketLifecycleConfiguration GetBucketLogging
GetBucketNotification GetBucketNotificationConfiguration GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus
GetBucketReplication GetBucketRequestPayment GetBucketWebsite GetObjectLegalHold GetObjectLockConfiguration GetObjectRetention
GetPublicAccessBlock""".split())
# Its path names no bucket that could be: refused as such.
REFUSED_OTHERWISE = {"WriteGetObjectResponse"}

# Without parameters they are another operation to the byte: SDKs send them to another host.
TOLD_APART_BY_PARAMETERS = {"ListDirectoryBuckets"}

CONTENT = b"what was there before\n" * 100
BODY = b'<?xml version="1.0" encoding="UTF-8"?><Anything xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></Anything>'


def fetch_model(context):
    python = environment.python("boto3")
    folder = context.folder("botocore")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", folder,
                           "botocore"], capture_output=True, text=True)
    if done.returncode != 0:
        context.note("the current botocore could not be fetched: walking the installed one")
        folder = pathlib.Path(subprocess.run([python, "-c", "import botocore; print(botocore.__path__[0])"], check=True, capture_output=True,
                                             text=True).stdout.strip()).parent
    version = re.search(r"__version__ = '([^']+)'", (folder / "botocore/__init__.py").read_text()).group(1)
    context.note(f"the S3 model of botocore {version}")
    place = folder / "botocore/data/s3/2006-03-01"
    packed = place / "service-2.json.gz"
    return json.loads(gzip.decompress(packed.read_bytes()) if packed.exists() else (place / "service-2.json").read_bytes())


def requests_of(model, name):
    """(path with {Bucket} and {Key}, query) as an SDK sends the operation: with what it must have, and with everything."""
    operation = model["operations"][name]
    path, _, fixed = operation["http"]["requestUri"].partition("?")
    base = dict(part.partition("=")[::2] for part in fixed.split("&") if part)
    shape = model["shapes"].get(operation.get("input", {}).get("shape", ""), {})
    members = {m: d["locationName"] for m, d in shape.get("members", {}).items() if d.get("location") == "querystring"}
    sample = {"partNumber": "1", "uploadId": "0" * 32, "versionId": "null", "encoding-type": "url"}
    value = lambda n: sample.get(n, "1" if n.startswith("max") else "sample")  # noqa: E731
    required = {members[m]: value(members[m]) for m in shape.get("required", []) if m in members}
    everything = {n: value(n) for n in members.values()}
    yield path, {**base, **required}
    if everything != required:
        yield path, {**base, **everything}


def run(context):
    model = fetch_model(context)
    client = context.server.client()
    full, empty = context.bucket("model-full"), context.bucket("model-empty")
    client.request("PUT", f"/{full}/key", body=CONTENT)

    def expect_unchanged():
        assert client.request("GET", f"/{full}/key")[1] == CONTENT, "the object is another one"
        keys = re.findall(r"<Key>([^<]*)</Key>", client.request("GET", f"/{full}", {"list-type": "2"})[1].decode())
        assert keys == ["key"], f"the bucket holds {keys}"
        client.request("HEAD", f"/{empty}")
        assert b"<Key>" not in client.request("GET", f"/{empty}", {"list-type": "2"})[1], "something came into the empty bucket"
        assert "Enabled" not in client.request("GET", f"/{full}", {"versioning": ""})[1].decode(), "versioning was changed"

    def walk(name):
        if name in IMPLEMENTED:
            return
        method = model["operations"][name]["http"]["method"]
        requests = list(requests_of(model, name))
        for template, query in requests[1:] if name in TOLD_APART_BY_PARAMETERS else requests:
            for bucket, key in ((full, "key"), (empty, "new")):
                path = template.replace("{Bucket}", bucket).replace("{Key+}", key)
                for bare in (False, True):  # "?acl=" and "?acl": SDKs write both
                    try:
                        client.request(method, path, query, BODY if method in ("PUT", "POST") else b"", bare=bare)
                        status = 200
                    except S3Error as e:
                        status = e.status
                    if name in READ_AS_UNSET:
                        allowed = status in (200, 400, 404)
                    else:
                        allowed = status in (405, 501) or (name in REFUSED_OTHERWISE and status >= 400)
                    assert allowed, f"{method} {path} {query} is answered {status}"
                    expect_unchanged()

    unknown = IMPLEMENTED - set(model["operations"])
    if unknown:
        context.note(f"no longer in the model: {sorted(unknown)}")
    context.check_all(sorted(model["operations"]), walk, 1)
