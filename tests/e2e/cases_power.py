"""kill -9 of a loaded node, in a loop: puts of all sizes, overwrites, deletes and multipart uploads. After each kill every object is compared byte
for byte with what was acknowledged, listing and reading agree, and fsck finds nothing. Power cuts of a machine: tests/power.
QUARRY_KILL_ROUNDS sets how many rounds (5)."""
import os
import random
import re
import threading
import time

from node import Node, random_bytes

ABSENT = None


class Promises:
    """What each key may hold: `sure` was acknowledged last, `maybe` was asked for since and not answered. Each key has one writer."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sure, self.maybe = {}, {}
        self.acknowledged = 0

    def ask(self, key, body):
        with self.lock:
            self.maybe.setdefault(key, []).append(body)

    def answer(self, key, body):
        with self.lock:
            self.sure[key] = body
            self.maybe[key] = []
            self.acknowledged += 1

    def right(self, key):
        return [self.sure.get(key, ABSENT), *self.maybe.get(key, [])]


def multipart(node, key, parts):
    status, _, text = node.s3("POST", f"/bkt/{key}", query="uploads")
    assert status == 200, f"initiate {key}: {status}"
    upload = re.search(rb"<UploadId>([^<]*)<", text)[1].decode()
    etags = []
    for number, body in enumerate(parts, 1):
        status, headers, _ = node.s3("PUT", f"/bkt/{key}", body, query=f"partNumber={number}&uploadId={upload}")
        if status != 200:
            return status
        etags.append(headers["etag"])
    listed = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in enumerate(etags, 1))
    return node.s3("POST", f"/bkt/{key}", f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode(), query=f"uploadId={upload}")[0]


def work(node, worker, promises, stop, seed):
    rng = random.Random(f"{seed} {worker}")
    try:
        while not stop.is_set():
            key = f"w{worker}/{rng.randrange(25)}"
            dice = rng.random()
            if dice < 0.2:
                promises.ask(key, ABSENT)
                status, _, _ = node.s3("DELETE", f"/bkt/{key}")
                if status == 204:
                    promises.answer(key, ABSENT)
            elif dice < 0.25:
                parts = [random_bytes(5 << 20, rng.random()), random_bytes(rng.randrange(1, 400_000), rng.random())]
                promises.ask(key, b"".join(parts))
                if multipart(node, key, parts) == 200:
                    promises.answer(key, b"".join(parts))
            else:
                body = random_bytes(rng.choice([0, 10, 3000, 20_000, 70_000, 300_000, 2_000_000]), rng.random())
                promises.ask(key, body)
                status, _, _ = node.s3("PUT", f"/bkt/{key}", body)
                if status == 200:
                    promises.answer(key, body)
    except OSError:
        pass  # the node was killed


def listed_keys(node):
    keys, token = set(), ""
    while True:
        status, _, text = node.s3("GET", "/bkt", query="list-type=2" + token)
        assert status == 200, f"list: {status}"
        keys.update(k.decode() for k in re.findall(rb"<Key>([^<]*)</Key>", text))
        more = re.search(rb"<NextContinuationToken>([^<]*)<", text)
        if not more:
            return keys
        token = "&continuation-token=" + more[1].decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def verify(node, promises):
    listed = listed_keys(node)
    for key in sorted(set(promises.sure) | set(promises.maybe) | listed):
        status, _, body = node.s3("GET", f"/bkt/{key}")
        assert status in (200, 404), f"{key}: {status}"
        found = body if status == 200 else ABSENT
        assert found in promises.right(key), f"{key}: {'absent' if found is ABSENT else f'{len(found)} bytes'}, which nobody was promised"
        assert (key in listed) == (found is not ABSENT), f"{key}: listing and reading disagree"
        promises.sure[key], promises.maybe[key] = found, []
    return len(listed)


def test_kill_9_in_a_loop_keeps_every_promise():
    rounds = int(os.environ.get("QUARRY_KILL_ROUNDS", "5"))
    rng = random.Random(11)
    promises = Promises()
    verified = 0
    with Node("--drives", "4", "--drive-size", "2GiB") as node:
        node.create_bucket("bkt")
        for number in range(rounds):
            stop = threading.Event()
            threads = [threading.Thread(target=work, args=(node, w, promises, stop, number)) for w in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.1, 2.5))
            deadline = time.time() + 60
            while promises.acknowledged <= 20 * (number + 1) and time.time() < deadline:  # a slow machine
                time.sleep(0.01)
            node.kill()
            stop.set()
            for thread in threads:
                thread.join()
            if rng.random() < 0.3:  # and once more while it recovers
                node.start(wait=False)
                time.sleep(rng.uniform(0.01, 0.6))
                node.kill()
            node.start()
            verified += verify(node, promises)
            node.fsck()
        time.sleep(6)  # the sweep of what the kills left
        node.fsck()
        verified += verify(node, promises)
    assert promises.acknowledged > 20 * rounds, f"only {promises.acknowledged} requests were acknowledged: nothing was tested"
    print(f"kill -9: {rounds} rounds, {promises.acknowledged} requests acknowledged, {verified} objects compared, fsck sound each time")
