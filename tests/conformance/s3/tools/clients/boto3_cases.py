"""boto3 with its defaults (checksums on), as programs use it. Prints one JSON line a case; BUCKET and VERSIONED_BUCKET are empty buckets."""
import concurrent.futures
import hashlib
import io
import json
import os
import secrets
import socket
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

import boto3
import botocore.config
import botocore.exceptions
from boto3.s3.transfer import TransferConfig

BUCKET, VERSIONED = os.environ["BUCKET"], os.environ["VERSIONED_BUCKET"]
s3 = boto3.client("s3", verify=False, config=botocore.config.Config(retries={"max_attempts": 1}))


def refused(code, call, **arguments):
    """The call fails with this error code, or with one of them."""
    codes = (code,) if isinstance(code, str) else code
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] in codes, f"want {codes}, got {e.response['Error']}"
        return e.response
    raise AssertionError(f"want {codes}, but it succeeded")


def body(key, bucket=BUCKET, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


def put_get_head_delete():
    for size in (0, 1, 100, 4096, 65536, 1 << 20, (5 << 20) + 17):
        data = secrets.token_bytes(size)
        key = f"plain/{size} ü+%&=?#.bin"
        put = s3.put_object(Bucket=BUCKET, Key=key, Body=data, ContentType="text/x-test", Metadata={"colour": "blue"}, CacheControl="no-cache")
        assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"', put["ETag"]
        got = s3.get_object(Bucket=BUCKET, Key=key)
        assert got["Body"].read() == data
        head = s3.head_object(Bucket=BUCKET, Key=key)
        for answer in (got, head):
            assert answer["ContentLength"] == size and answer["ContentType"] == "text/x-test" and answer["CacheControl"] == "no-cache"
            assert answer["Metadata"] == {"colour": "blue"} and answer["ETag"] == put["ETag"]
        s3.delete_object(Bucket=BUCKET, Key=key)
        refused("404", s3.head_object, Bucket=BUCKET, Key=key)
        refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=key)


def ranges():
    data = secrets.token_bytes(3 << 20)
    s3.put_object(Bucket=BUCKET, Key="ranges", Body=data)
    for spec, part in (("bytes=0-0", data[:1]), ("bytes=100-199", data[100:200]), ("bytes=1048570-1048590", data[1048570:1048591]),
                       ("bytes=-77", data[-77:]), ("bytes=3145000-", data[3145000:]), ("bytes=2-99999999", data[2:])):
        got = s3.get_object(Bucket=BUCKET, Key="ranges", Range=spec)
        assert got["Body"].read() == part, spec
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and got["ContentRange"].endswith(f"/{len(data)}"), got["ContentRange"]
    refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key="ranges", Range="bytes=3145728-")


def checksum_algorithms():
    data = secrets.token_bytes(300_000)
    for algorithm in ("CRC32", "SHA1", "SHA256", "CRC32C", "CRC64NVME"):
        try:
            put = s3.put_object(Bucket=BUCKET, Key=f"sum/{algorithm}", Body=io.BytesIO(data), ChecksumAlgorithm=algorithm)
        except botocore.exceptions.MissingDependencyException:
            continue  # two of them want the C runtime; other suites cover those
        want = put[f"Checksum{algorithm}"]
        got = s3.get_object(Bucket=BUCKET, Key=f"sum/{algorithm}", ChecksumMode="ENABLED")
        assert got[f"Checksum{algorithm}"] == want and got["Body"].read() == data
        attributes = s3.get_object_attributes(Bucket=BUCKET, Key=f"sum/{algorithm}", ObjectAttributes=["Checksum", "ObjectSize", "ETag"])
        assert attributes["Checksum"][f"Checksum{algorithm}"] == want and attributes["ObjectSize"] == len(data), attributes
    refused(("BadDigest", "InvalidRequest", "XAmzContentChecksumMismatch"), s3.put_object, Bucket=BUCKET, Key="sum/wrong", Body=data, ChecksumSHA256="A" * 43 + "=")
    refused("404", s3.head_object, Bucket=BUCKET, Key="sum/wrong")


def multipart_by_transfer_manager():
    data = secrets.token_bytes((26 << 20) + 12345)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=6)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "multi/managed", Config=config)
    out = io.BytesIO()
    s3.download_fileobj(BUCKET, "multi/managed", out, Config=config)
    assert out.getvalue() == data
    assert s3.head_object(Bucket=BUCKET, Key="multi/managed")["ETag"].endswith('-6"')
    s3.copy({"Bucket": BUCKET, "Key": "multi/managed"}, BUCKET, "multi/copied in parts", Config=config)
    assert body("multi/copied in parts") == data


def multipart_by_hand():
    key = "multi/hand"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, Metadata={"a": "b"})["UploadId"]
    parts = {1: secrets.token_bytes(5 << 20), 2: secrets.token_bytes(6 << 20), 7: secrets.token_bytes(99)}
    etags = {}
    for number in (7, 1, 2):
        s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=b"overwritten below" * 999)
        etags[number] = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=parts[number])["ETag"]
    listed = s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)["Parts"]
    assert [(p["PartNumber"], p["Size"], p["ETag"]) for p in listed] == [(n, len(parts[n]), etags[n]) for n in (1, 2, 7)]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [upload]
    refused("404", s3.head_object, Bucket=BUCKET, Key=key)
    wrong = [{"PartNumber": 1, "ETag": etags[2]}]
    refused("InvalidPart", s3.complete_multipart_upload, Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": wrong})
    done = s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload,
                                        MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in (1, 2, 7)]})
    digest = hashlib.md5(b"".join(hashlib.md5(parts[n]).digest() for n in (1, 2, 7))).hexdigest()
    assert done["ETag"] == f'"{digest}-3"', done["ETag"]
    assert body(key) == b"".join(parts.values())
    part = s3.get_object(Bucket=BUCKET, Key=key, PartNumber=2)
    assert part["Body"].read() == parts[2] and part["PartsCount"] == 3
    aborted = s3.create_multipart_upload(Bucket=BUCKET, Key="multi/aborted")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="multi/aborted", UploadId=aborted, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="multi/aborted", UploadId=aborted)
    refused("NoSuchUpload", s3.upload_part, Bucket=BUCKET, Key="multi/aborted", UploadId=aborted, PartNumber=1, Body=b"x")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def conditional_requests():
    etag = s3.put_object(Bucket=BUCKET, Key="cond", Body=b"one", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key="cond", Body=b"two", IfNoneMatch="*")
    newer = s3.put_object(Bucket=BUCKET, Key="cond", Body=b"three", IfMatch=etag)["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key="cond", Body=b"four", IfMatch=etag)
    refused(("NoSuchKey", "PreconditionFailed"), s3.put_object, Bucket=BUCKET, Key="cond-missing", Body=b"x", IfMatch=etag)
    assert body("cond", IfMatch=newer) == b"three"
    refused("PreconditionFailed", s3.get_object, Bucket=BUCKET, Key="cond", IfMatch=etag)
    refused("304", s3.get_object, Bucket=BUCKET, Key="cond", IfNoneMatch=newer)
    modified = s3.head_object(Bucket=BUCKET, Key="cond")["LastModified"]
    refused("304", s3.head_object, Bucket=BUCKET, Key="cond", IfModifiedSince=modified)
    assert body("cond") == b"three"


def conditional_race_has_one_winner():
    for round_number in range(10):
        def create(n):
            try:
                s3.put_object(Bucket=BUCKET, Key=f"race/{round_number}", Body=b"%d" % n, IfNoneMatch="*")
                return n
            except botocore.exceptions.ClientError as e:
                assert e.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), e
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            winners = [n for n in pool.map(create, range(8)) if n is not None]
        assert len(winners) == 1, winners
        assert body(f"race/{round_number}") == b"%d" % winners[0]


def presigned_urls():
    data = secrets.token_bytes(70_000)
    signer = boto3.client("s3", config=botocore.config.Config(signature_version="s3v4"))
    put = signer.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(put, data=data, method="PUT", headers={"Content-Type": ""})) as answer:
        assert answer.status == 200
    get = signer.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü", "ResponseContentType": "image/x"}, ExpiresIn=60)
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == data and answer.headers["Content-Type"] == "image/x"
    for broken in (get.replace("X-Amz-Signature=", "X-Amz-Signature=0"), get.replace("pre%20signed", "pre%20signee")):
        try:
            urllib.request.urlopen(broken)
            raise AssertionError("a tampered URL was served")
        except urllib.error.HTTPError as e:
            assert e.code == 403, e.code
    short = signer.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"}, ExpiresIn=1)
    time.sleep(2.2)
    try:
        urllib.request.urlopen(short)
        raise AssertionError("an expired URL was served")
    except urllib.error.HTTPError as e:
        assert e.code == 403 and b"AccessDenied" in e.read()


def wrong_keys_are_refused():
    def client(**keys):
        return boto3.client("s3", verify=False, config=botocore.config.Config(retries={"max_attempts": 1}), **keys)
    refused("InvalidAccessKeyId", client(aws_access_key_id="nobody", aws_secret_access_key="x" * 20).list_buckets)
    refused("SignatureDoesNotMatch", client(aws_secret_access_key="x" * 20, aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"]).list_buckets)


def listing_pages_and_delimiters():
    keys = sorted([f"list/{a}/{b:03d}" for a in "abc" for b in range(25)] + [f"list/top{n}" for n in range(5)] + ["list/a", "list/ü é", "list/a b+c"],
                  key=lambda k: k.encode())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: s3.put_object(Bucket=BUCKET, Key=k, Body=k.encode()), keys))
    for method in ("list_objects_v2", "list_objects"):
        pages = list(s3.get_paginator(method).paginate(Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 7}))
        assert [o["Key"] for p in pages for o in p.get("Contents", [])] == keys, method
        assert all(len(p["Contents"]) == 7 for p in pages[:-1])
        pages = list(s3.get_paginator(method).paginate(Bucket=BUCKET, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": 2}))
        assert [c["Prefix"] for p in pages for c in p.get("CommonPrefixes", [])] == ["list/a/", "list/b/", "list/c/"], method
        assert [o["Key"] for p in pages for o in p.get("Contents", [])] == [k for k in keys if k.count("/") == 1], method
    after = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter="list/b/024")["Contents"]
    assert after[0]["Key"] == "list/c/000"
    deleted = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": k} for k in keys] + [{"Key": "list/never there"}]})
    assert sorted(d["Key"] for d in deleted["Deleted"]) == sorted(keys + ["list/never there"]) and "Errors" not in deleted
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="list/")["KeyCount"] == 0


def versions():
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    ids = [s3.put_object(Bucket=VERSIONED, Key="v", Body=b"%d" % n)["VersionId"] for n in range(4)]
    assert len(set(ids)) == 4
    marker = s3.delete_object(Bucket=VERSIONED, Key="v")
    assert marker["DeleteMarker"] is True
    refused("NoSuchKey", s3.get_object, Bucket=VERSIONED, Key="v")
    assert "Contents" not in s3.list_objects_v2(Bucket=VERSIONED)
    for n, version in enumerate(ids):
        assert body("v", VERSIONED, VersionId=version) == b"%d" % n
    listed = s3.list_object_versions(Bucket=VERSIONED)
    assert [v["VersionId"] for v in listed["Versions"]] == ids[::-1] and [m["VersionId"] for m in listed["DeleteMarkers"]] == [marker["VersionId"]]
    s3.delete_object(Bucket=VERSIONED, Key="v", VersionId=marker["VersionId"])
    assert body("v", VERSIONED) == b"3"
    s3.delete_object(Bucket=VERSIONED, Key="v", VersionId=ids[3])
    assert body("v", VERSIONED) == b"2"
    s3.copy_object(Bucket=VERSIONED, Key="v", CopySource={"Bucket": VERSIONED, "Key": "v", "VersionId": ids[0]})
    assert body("v", VERSIONED) == b"0"
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=VERSIONED)
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=VERSIONED, Key="v", Body=b"null")
    assert body("v", VERSIONED, VersionId="null") == b"null" and body("v", VERSIONED, VersionId=ids[1]) == b"1"


def tagging_and_copy():
    s3.put_object(Bucket=BUCKET, Key="tag", Body=b"x", Tagging="a=1&b=two%20words")
    assert {t["Key"]: t["Value"] for t in s3.get_object_tagging(Bucket=BUCKET, Key="tag")["TagSet"]} == {"a": "1", "b": "two words"}
    assert s3.get_object(Bucket=BUCKET, Key="tag")["TagCount"] == 2
    s3.copy_object(Bucket=BUCKET, Key="tag copy", CopySource=f"{BUCKET}/tag")
    assert len(s3.get_object_tagging(Bucket=BUCKET, Key="tag copy")["TagSet"]) == 2
    s3.copy_object(Bucket=BUCKET, Key="tag copy", CopySource=f"{BUCKET}/tag", MetadataDirective="REPLACE", Metadata={"new": "1"}, ContentType="a/b",
                   TaggingDirective="REPLACE", Tagging="c=3")
    head = s3.head_object(Bucket=BUCKET, Key="tag copy")
    assert head["Metadata"] == {"new": "1"} and head["ContentType"] == "a/b"
    assert s3.get_object_tagging(Bucket=BUCKET, Key="tag copy")["TagSet"] == [{"Key": "c", "Value": "3"}]
    s3.delete_object_tagging(Bucket=BUCKET, Key="tag")
    assert s3.get_object_tagging(Bucket=BUCKET, Key="tag")["TagSet"] == []


def virtual_host_style():
    # *.localhost is loopback by definition, but not every resolver knows.
    resolve = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: resolve("127.0.0.1" if str(host).endswith("localhost") else host, *rest, **more)
    try:
        url = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
        client = boto3.client("s3", endpoint_url=f"{url.scheme}://localhost:{url.port}", verify=False,
                              config=botocore.config.Config(s3={"addressing_style": "virtual"}, retries={"max_attempts": 1}))
        seen = []
        client.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
        client.put_object(Bucket=BUCKET, Key="virtual/host", Body=b"hello")
        assert client.get_object(Bucket=BUCKET, Key="virtual/host")["Body"].read() == b"hello"
        assert [o["Key"] for o in client.list_objects_v2(Bucket=BUCKET, Prefix="virtual/")["Contents"]] == ["virtual/host"]
        assert all(f"//{BUCKET}.localhost" in u for u in seen) and len(seen) == 3, seen
        assert body("virtual/host") == b"hello"
    finally:
        socket.getaddrinfo = resolve


CASES = [put_get_head_delete, ranges, checksum_algorithms, multipart_by_transfer_manager, multipart_by_hand, conditional_requests,
         conditional_race_has_one_winner, presigned_urls, wrong_keys_are_refused, listing_pages_and_delimiters, versions, tagging_and_copy,
         virtual_host_style]

if __name__ == "__main__":
    for case in CASES:
        start, message = time.monotonic(), ""
        try:
            case()
        except Exception as e:
            line = traceback.extract_tb(sys.exc_info()[2])
            own = [f for f in line if f.filename == __file__][-1]
            message = f"{type(e).__name__}: {e} (line {own.lineno}: {own.line})"
        print(json.dumps({"case": case.__name__, "message": message, "seconds": time.monotonic() - start}), flush=True)
