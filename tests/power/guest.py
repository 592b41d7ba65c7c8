"""Runs inside the guest: starts a node on raw drives, reads back everything that is there, checks the store, then writes, overwrites and
deletes until the power goes. Speaks to the host in lines on standard output:

    BOOT                         the node is about to be started
    UP SECONDS                   it serves
    STATE KEY VERSION SIZE       the object is there; every byte is what that version of the key has
    WRONG KEY REASON             it is there, with something else
    CHECKED OBJECTS              all were read, fsck found nothing
    LOAD                         writing begins
    TRY KEY VERSION SIZE         a put is about to be sent; size -1: a delete
    ACK KEY VERSION SIZE         it was acknowledged
    FAIL TEXT                    the round cannot go on

Contents are a function of key, version and size alone, so that no line that is lost on the way makes an object unknown. Each key has one
writer, and its versions only grow.
"""
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from node import Node  # noqa: E402

BUCKET = "power"
SIZES = [0, 17, 900, 4096, 9_000, 60_000, 70_000, 200_000, 700_000, 1_500_000]
lock = threading.Lock()


def say(*words):
    with lock:
        os.write(1, (" ".join(str(w) for w in words) + "\n").encode())


def contents(key, version, size):
    head = f"{key} {version} {size}\n".encode()
    return (head + random.Random(f"{key} {version}").randbytes(max(0, size - len(head))))[:size] if size >= len(head) else b"v%d" % version


def read_back(node):
    """Every object: which version it is, and whether all of it is. Returns {key: version}."""
    found = {}
    token = ""
    while True:
        status, _, text = node.s3("GET", f"/{BUCKET}", query="list-type=2" + token)
        if status == 404 and b"NoSuchBucket" in text:
            say("STATE", "-", 0, 0)
            return found
        assert status == 200, f"list: {status} {text[:200]}"
        for key in re.findall(rb"<Key>([^<]*)</Key>", text):
            found[key.decode()] = 0
        more = re.search(rb"<NextContinuationToken>([^<]*)<", text)
        if not more:
            break
        token = "&continuation-token=" + more[1].decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    for key in found:
        status, _, body = node.s3("GET", f"/{BUCKET}/{key}")
        if status != 200:
            say("WRONG", key, f"GET answers {status} {body[:120]!r}")
            continue
        head = body.split(b"\n", 1)[0].split()
        small = re.fullmatch(rb"v(\d+)", body)
        if small:
            version, size = int(small[1]), 0
        elif len(head) == 3 and head[0].decode() == key:
            version, size = int(head[1]), int(head[2])
        else:
            say("WRONG", key, f"{len(body)} bytes that nobody wrote: {body[:40]!r}")
            continue
        if body != contents(key, version, size):
            say("WRONG", key, f"version {version}: {len(body)} bytes differ from the {size} that were written")
            continue
        found[key] = version
        say("STATE", key, version, size)
    return found


def write_for_ever(node, worker, versions, seed):
    rng = random.Random(f"{seed} {worker}")
    while True:
        key = f"w{worker}-{rng.randrange(12)}"
        version = versions.get(key, 0) + 1
        versions[key] = version
        try:
            if rng.random() < 0.15:
                say("TRY", key, version, -1)
                status, _, text = node.s3("DELETE", f"/{BUCKET}/{key}")
                size, good = -1, status == 204
            else:
                size = rng.choice(SIZES)
                say("TRY", key, version, size)
                status, _, text = node.s3("PUT", f"/{BUCKET}/{key}", contents(key, version, size))
                good = status == 200
        except OSError as error:
            say("FAIL", "request:", error)
            return
        if not good:
            say("FAIL", f"{key}: {status} {text[:200]!r}")
            return
        say("ACK", key, version, size)


def main():
    root, seed, first_version, load, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "load", int(sys.argv[5])
    drives = sys.argv[6:]
    os.makedirs(root, exist_ok=True)
    node = Node(*[a for d in drives for a in ("--device", os.path.realpath(d))], root=root)
    node.patience_s = 300
    say("BOOT")
    started = time.time()
    node.start()
    say("UP", round(time.time() - started, 1))
    found = read_back(node)
    node.fsck()
    say("CHECKED", len(found))
    if not load:
        assert node.stop() == 0, "SIGTERM does not end the node cleanly"
        say("STOPPED")
        return
    if node.s3("HEAD", f"/{BUCKET}")[0] != 200:
        node.create_bucket(BUCKET)
        say("ACK", "-", 0, 0)
    say("LOAD")
    versions = {f"w{w}-{i}": first_version for w in range(workers) for i in range(12)}
    threads = [threading.Thread(target=write_for_ever, args=(node, w, versions, seed), daemon=True) for w in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


try:
    main()
except Exception as error:  # noqa: BLE001: the host reports it
    say("FAIL", repr(error)[:1500].replace("\n", " "))
    subprocess.run(["sh", "-c", "dmesg | tail -5 >&2"])
    sys.exit(1)
