"""In the guest: the words it speaks to the host, what it writes, and how it reads all of it back.

    BOOT                         the node is about to be started
    UP SECONDS                   it serves
    STATE KEY VERSION SIZE       the object is there; every byte is what that version of the key has
    KEPT KEY VERSION SIZE        so is this version of a key that keeps them (the current one is among them)
    WRONG KEY REASON             it is there, with something else
    WARNED LINE                  the node's log has this warning
    TREE FILES                   the node was stopped, and so many files in the mountpaths were compared
    CHECKED OBJECTS              all were read, fsck found nothing
    LOAD                         writing begins
    TRY KEY VERSION SIZE         a put is about to be sent; size -1: a delete
    ACK KEY VERSION SIZE         it was acknowledged
    FAIL TEXT                    the round cannot go on

A key that begins with - is a bucket. Contents are a function of key, version and size alone, so that no line that is lost on the way makes an
object unknown. Each key has one writer, and its versions only grow."""
import os
import random
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))

BUCKETS = ["power", "versions"]
SIZES = [0, 17, 900, 4096, 9_000, 60_000, 70_000, 200_000, 700_000, 1_500_000]
PART = 5 << 20
lock = threading.Lock()


def say(*words):
    with lock:
        os.write(1, (" ".join(str(w) for w in words) + "\n").encode())


def contents(key, version, size):
    head = f"{key} {version} {size}\n".encode()
    return (head + random.Random(f"{key} {version}").randbytes(max(0, size - len(head))))[:size] if size >= len(head) else b"v%d" % version


def keys_of(worker):
    """Some are directories of others, and some keep their versions."""
    return ([f"w{worker}-{i}" for i in range(6)] + [f"w{worker}/d"] + [f"w{worker}/d/{i}" for i in range(3)] + [f"w{worker}/d/e/f"]
            + [f"v{worker}-{i}" for i in range(3)])


def bucket_of(key):
    return BUCKETS[key.startswith("v")]


def identify(key, body):
    """(version, size) of what was read, or why it is nothing that was written."""
    small = re.fullmatch(rb"v(\d+)", body)
    head = body[:200].split(b"\n", 1)[0].split()
    if small:
        version, size = int(small[1]), 0
    elif len(head) == 3 and head[0].decode(errors="replace") == key and head[1].isdigit() and head[2].isdigit():
        version, size = int(head[1]), int(head[2])
    else:
        return f"{len(body)} bytes that nobody wrote: {body[:40]!r}"
    if body != contents(key, version, size):
        return f"version {version}: {len(body)} bytes differ from the {size} that were written"
    return version, size


def listed(node, bucket):
    """The keys; None: no such bucket."""
    keys, token = [], ""
    while True:
        status, _, text = node.s3("GET", f"/{bucket}", query="list-type=2" + token)
        if status == 404 and b"NoSuchBucket" in text:
            return None
        assert status == 200, f"list: {status} {text[:200]}"
        keys += [k.decode() for k in re.findall(rb"<Key>([^<]*)</Key>", text)]
        more = re.search(rb"<NextContinuationToken>([^<]*)<", text)
        if not more:
            return keys
        token = "&continuation-token=" + more[1].decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def versions_of(node, bucket):
    """(key, version id) of every version that is no delete marker."""
    found, more = [], ""
    while True:
        status, _, text = node.s3("GET", f"/{bucket}", query="versions" + more)
        assert status == 200, f"list of versions: {status} {text[:200]}"
        for entry in re.findall(rb"<Version>(.*?)</Version>", text, re.S):
            found.append((re.search(rb"<Key>([^<]*)<", entry)[1].decode(), re.search(rb"<VersionId>([^<]*)<", entry)[1].decode()))
        key, version = re.search(rb"<NextKeyMarker>([^<]*)<", text), re.search(rb"<NextVersionIdMarker>([^<]*)<", text)
        if not key:
            return found
        more = f"&key-marker={key[1].decode()}" + (f"&version-id-marker={version[1].decode()}" if version else "")


def read(node, key, query=""):
    """(version, size), told as WRONG if it is neither."""
    status, _, body = node.s3("GET", f"/{bucket_of(key)}/{key}", query=query)
    found = identify(key, body) if status == 200 else f"GET {query} answers {status} {body[:120]!r}"
    if isinstance(found, str):
        say("WRONG", key, found)
        return None
    return found


def read_back(node):
    """Every object: which version it is, and whether all of it is. Returns key -> (version, size), and how many older versions there are."""
    found, older = {}, 0
    for bucket in BUCKETS:
        keys = listed(node, bucket)
        if keys is None:
            say("STATE", "-" + bucket, 0, 0)
            continue
        for key in keys:
            found[key] = read(node, key)
            if found[key]:
                say("STATE", key, *found[key])
        if bucket == "versions":
            for key, version in versions_of(node, bucket):
                one = read(node, key, f"versionId={version}")
                older += one is not None and one != found.get(key)
                if one:
                    say("KEPT", key, *one)
    return {key: one for key, one in found.items() if one}, older


def abort_uploads(node):
    """Uploads that the cut left open are no leak, but their parts lie among the hidden files."""
    for bucket in BUCKETS:
        status, _, text = node.s3("GET", f"/{bucket}", query="uploads")
        for entry in re.findall(rb"<Upload>(.*?)</Upload>", text if status == 200 else b"", re.S):
            key, upload = re.search(rb"<Key>([^<]*)<", entry)[1].decode(), re.search(rb"<UploadId>([^<]*)<", entry)[1].decode()
            assert node.s3("DELETE", f"/{bucket}/{key}", query=f"uploadId={upload}")[0] == 204


def put(node, key, body):
    """Status and text of the answer; in parts if it is large."""
    path = f"/{bucket_of(key)}/{key}"
    if len(body) <= PART:
        status, _, text = node.s3("PUT", path, body)
        return status, text
    status, _, text = node.s3("POST", path, query="uploads")
    if status != 200:
        return status, text
    upload = re.search(rb"<UploadId>([^<]*)<", text)[1].decode()
    parts = ""
    for number, part in enumerate([body[:PART], body[PART:]], 1):
        status, headers, text = node.s3("PUT", path, part, query=f"partNumber={number}&uploadId={upload}")
        if status != 200:
            return status, text
        parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{headers['etag']}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    status, _, text = node.s3("POST", path, whole, query=f"uploadId={upload}")
    return (500 if b"<Error>" in text else status), text


class Writers:
    """Threads that put, overwrite and delete until the power goes. refused(status, text): whether this answer is no failure (the request may
    have been done or not: it stays tried)."""

    def __init__(self, node, workers, seed, first_version, refused=lambda status, text: False):
        self.node, self.refused, self.first_version = node, refused, first_version
        self.stop = threading.Event()
        self.acknowledged = 0
        self.threads = [threading.Thread(target=self.work, args=(w, random.Random(f"{seed} {w}")), daemon=True) for w in range(workers)]
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join()

    def work(self, worker, rng):
        keys = keys_of(worker)
        versions = dict.fromkeys(keys, self.first_version)
        while not self.stop.is_set():
            key = rng.choice(keys)
            versions[key] += 1
            size = -1 if rng.random() < 0.15 else rng.choice(SIZES[:7]) if key[0] == "v" else PART + 300_000 if rng.random() < 0.02 else rng.choice(SIZES)
            try:
                say("TRY", key, versions[key], size)
                if size < 0:
                    status, _, text = self.node.s3("DELETE", f"/{bucket_of(key)}/{key}")
                else:
                    status, text = put(self.node, key, contents(key, versions[key], size))
            except OSError as error:
                say("FAIL", "request:", repr(error))
                return
            if status == (204 if size < 0 else 200):
                say("ACK", key, versions[key], size)
                self.acknowledged += 1
            elif not self.refused(status, text):
                say("FAIL", f"{key}: {status} {text[:200]!r}")
                return
