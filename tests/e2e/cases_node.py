"""The life of a node: first start, restart, loss of its directory, kill -9, full drives, damaged and lost drives."""
import glob
import json
import os
import random
import shutil
import stat
import subprocess
import threading
import time

from node import BINARY, NO_NODE, Node, Skip, free_port, random_bytes, scratch

SIZES = [0, 1, 100, 4096, 4097, 100_000, 131_073, 1_000_000, 5_000_000, 12_345_678]


def fill(node, bucket, seed=1):
    objects = {f"size/{size}": random_bytes(size, seed + size) for size in SIZES}
    for key, body in objects.items():
        node.put(bucket, key, body)
    return objects


def check(node, bucket, objects):
    for key, body in objects.items():
        assert node.get(bucket, key) == body, f"{bucket}/{key} differs"


def drive_files(node):
    return sorted(glob.glob(os.path.join(node.root, "drives", "*")))


def test_first_start_makes_exactly_what_was_asked_for():
    with Node("--drives", "4", "--drive-size", "256MiB") as node:
        files = drive_files(node)
        assert len(files) == 4 and all(os.path.getsize(f) == 256 << 20 for f in files), files
        assert sum(os.stat(f).st_blocks * 512 for f in files) < 512 << 20, "the drives are not sparse"
        path = os.path.join(node.root, "endpoints.json")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert set(json.load(open(path))) == {"s3", "admin", "access_key", "secret_key", "region"}
        assert node.stop() == 0, "SIGTERM does not end it cleanly"


def test_a_restart_brings_back_data_and_keys():
    with Node("--drives", "4", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        objects = fill(node, "bkt")
        before = dict(node.endpoints)
        assert node.stop() == 0
        node.start()
        assert (before["access_key"], before["secret_key"]) == (node.endpoints["access_key"], node.endpoints["secret_key"])
        check(node, "bkt", objects)
        node.fsck()


def test_the_drives_alone_bring_the_store_back():
    with Node("--drives", "5", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        node.admin("POST", "/v1/buckets/bkt", {"versioning": "enabled"})
        objects = fill(node, "bkt", seed=1)
        objects = {**objects, **fill(node, "bkt", seed=2)}
        before = dict(node.endpoints)
        node.kill()  # no orderly end: everything acknowledged must be on the drives
        moved = scratch()
        shutil.move(os.path.join(node.root, "drives"), os.path.join(moved, "drives"))
        shutil.rmtree(node.root)
        os.mkdir(node.root)
        try:
            node.args = [a for f in sorted(glob.glob(os.path.join(moved, "drives", "*"))) for a in ("--device", f)]
            node.start()
            assert before["access_key"] == node.endpoints["access_key"] and before["secret_key"] == node.endpoints["secret_key"]
            check(node, "bkt", objects)
            status, _, text = node.s3("GET", "/bkt", query="versions")
            assert status == 200 and text.count(b"<Version>") == 2 * len(SIZES), text[:500]
            node.fsck()
        finally:
            node.kill()
            shutil.rmtree(moved)


def test_kill_9_under_load_loses_nothing_acknowledged():
    with Node("--drives", "4", "--drive-size", "1GiB") as node:
        node.create_bucket("bkt")
        acknowledged = {}
        settled_keys = set()
        for cycle in range(4):
            stop = threading.Event()
            lock = threading.Lock()

            def work(worker):
                rng = random.Random(cycle * 100 + worker)
                while not stop.is_set():
                    key = f"w{worker}/{rng.randrange(40)}"
                    size = rng.choice([10, 3000, 20_000, 300_000, 2_000_000])
                    body = random_bytes(size, rng.random())
                    with lock:
                        acknowledged.setdefault(key, [])
                        acknowledged[key] = acknowledged[key] + [body]  # may be there from now on
                    try:
                        status, _, _ = node.s3("PUT", f"/bkt/{key}", body)
                    except OSError:
                        return
                    if status == 200:
                        with lock:
                            acknowledged[key] = [body]
                            settled_keys.add(key)

            threads = [threading.Thread(target=work, args=(w,)) for w in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(1.5)
            node.kill()
            stop.set()
            for thread in threads:
                thread.join()
            node.start()
            for key, candidates in acknowledged.items():
                status, _, body = node.s3("GET", f"/bkt/{key}")
                if status == 404 and key not in settled_keys:
                    continue  # never acknowledged: absent is one of its two right states
                assert status == 200, f"{key}: {status}"
                assert body in candidates, f"{key}: bytes that nobody wrote last"
                acknowledged[key] = [body]
                settled_keys.add(key)
        time.sleep(6)  # the sweep of what the crashes left
        node.fsck()


def test_a_lost_drive_is_survived_replaced_and_repaired():
    with Node("--drives", "6", "--drive-size", "512MiB", "--profile", "standard") as node:
        node.create_bucket("bkt")
        objects = fill(node, "bkt")
        assert node.stop() == 0
        os.unlink(drive_files(node)[2])
        survivors = drive_files(node)
        node.args = [a for f in survivors for a in ("--device", f)]
        node.start()
        check(node, "bkt", objects)
        assert node.admin("GET", "/v1/status")["health"] == "degraded"
        node.put("bkt", "written/degraded", b"x" * 3_000_000)
        fresh = os.path.join(node.root, "fresh-drive")
        with open(fresh, "wb") as f:
            f.truncate(512 << 20)
        missing = [d for d in node.admin("GET", "/v1/status")["drives"] if d["state"] in ("missing", "failed")]
        assert len(missing) == 1, missing
        node.admin("POST", f"/v1/drives/{missing[0]['number']}/replace", {"path": fresh})
        deadline = time.time() + 180
        while node.admin("GET", "/v1/status")["health"] != "healthy":
            assert time.time() < deadline, node.admin("GET", "/v1/status")["repair"]
            time.sleep(0.2)
        check(node, "bkt", objects)
        node.fsck()


def test_silent_corruption_is_never_served_and_scrub_mends_it():
    with Node("--drives", "4", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        objects = fill(node, "bkt")
        assert node.stop() == 0
        victim = drive_files(node)[1]
        rng = random.Random(7)
        hurt = 0
        with open(victim, "r+b") as f:
            for offset in range(64 << 20, 512 << 20, 65536):  # behind the structures at the start
                f.seek(offset)
                block = f.read(4096)
                if any(block):
                    f.seek(offset + rng.randrange(4096))
                    f.write(bytes([rng.randrange(256)]))
                    hurt += 1
        assert hurt > 0, "nothing to corrupt was found"
        node.start()
        check(node, "bkt", objects)
        node.admin("POST", "/v1/scrub")
        deadline = time.time() + 180
        while True:
            scrub = node.admin("GET", "/v1/status")["scrub"]
            if scrub["state"] == "idle" and scrub["chunks_checked"] > 0:
                break
            assert time.time() < deadline, scrub
            time.sleep(0.2)
        check(node, "bkt", objects)


def test_full_drives_refuse_with_a_clear_error_and_keep_what_they_hold():
    with Node("--drives", "3", "--drive-size", "96MiB") as node:
        node.create_bucket("bkt")
        held = {}
        refused = None
        for i in range(400):
            body = random_bytes(1_000_000, i)
            status, _, text = node.s3("PUT", f"/bkt/fill/{i}", body)
            if status != 200:
                refused = (status, text)
                break
            held[f"fill/{i}"] = body
        assert refused is not None, "the drives never became full"
        assert refused[0] in (507, 503) and b"<Code>" in refused[1], refused
        check(node, "bkt", held)
        for key in list(held)[: len(held) // 2]:
            status, _, _ = node.s3("DELETE", f"/bkt/{key}")
            assert status == 204
            del held[key]
        deadline = time.time() + 180
        while True:
            status, _, text = node.s3("PUT", "/bkt/again", b"y" * 1_000_000)
            if status == 200:
                break
            assert time.time() < deadline, f"freed space never returns: {status} {text[:200]}"
            time.sleep(0.5)
        check(node, "bkt", held)
        node.fsck()


def test_a_foreign_device_is_refused():
    if NO_NODE:
        raise Skip(NO_NODE)
    directory = scratch()
    try:
        path = os.path.join(directory, "ext4")
        with open(path, "wb") as f:
            f.truncate(128 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
        before = open(path, "rb").read(8192)
        done = subprocess.run([BINARY, "device", "format", path], capture_output=True, text=True)
        assert done.returncode == 1 and "ext4" in done.stderr and "--force" in done.stderr, done
        done = subprocess.run([BINARY, "up", "--root", os.path.join(directory, "root"), "--s3", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}",
                               "--device", path], capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and "ext4" in done.stderr, done
        assert open(path, "rb").read(8192) == before, "a refused device was written to"
    finally:
        shutil.rmtree(directory)


def test_a_second_node_on_the_same_root_is_refused():
    with Node("--drives", "2", "--drive-size", "128MiB") as node:
        done = subprocess.run([BINARY, "up", "--root", node.root, "--s3", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and "already" in done.stderr, done
        assert node.admin("GET", "/v1/status")["health"] == "healthy"
