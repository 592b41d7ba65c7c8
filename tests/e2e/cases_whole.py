"""whole:k+m: one full copy under its readable name beside slices that are read only where the copy cannot be."""
import glob
import http.client
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
import xml.etree.ElementTree as xml

from cases_drive_kinds import Pool, check, expect_tree, tree, tree_becomes, work_through, work_with_versions
from node import BINARY, NO_NODE, Skip, random_bytes, scratch

BIG = 6_000_001


def whole_pool(drives=4, profile="whole:2+1"):
    return Pool(["dir"] * drives, "--profile", profile)


def fill(node, count=24):
    """Objects of many sizes; a group of drives is home to each."""
    node.create_bucket("bkt")
    objects = {}
    for i in range(count):
        size = [0, 1, 4096, 70_000, 1_000_000, 2_500_001][i % 6]
        objects[f"o/{i}"] = random_bytes(size, i)
        node.put("bkt", f"o/{i}", objects[f"o/{i}"])
    return objects


def home_of(node, key):
    """The mountpath that shows the object, and the file."""
    found = [d for d in node.directories() if os.path.isfile(os.path.join(d, "bkt", key))]
    assert len(found) == 1, f"{key} is shown {len(found)} times"
    return found[0], os.path.join(found[0], "bkt", key)


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def data_chunks(directory):
    """Slices of object data (ids of kind 1) that lie on a mountpath."""
    return glob.glob(os.path.join(directory, ".quarry/chunks/*/01*"))


def shows_nothing(directory):
    return not any(names for folder, _, names in os.walk(directory) if ".quarry" not in folder)


def occupied(directory):
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(directory) for name in names)


def test_the_life_of_a_pool_of_copies_and_slices():
    with whole_pool(5) as node:
        objects = work_through(node)
        expect_tree(node, "bkt", objects, copies=1)
        ids = work_with_versions(node)
        shown = [t for d in node.directories() if (t := tree(os.path.join(d, "ver")) if os.path.isdir(os.path.join(d, "ver")) else {})]
        assert shown == [{"k": b"three"}], shown
        status, headers, _ = node.s3("DELETE", "/ver/k")
        assert status == 204 and not any(os.path.exists(os.path.join(d, "ver/k")) for d in node.directories())
        node.s3("DELETE", "/ver/k", query=f"versionId={headers['x-amz-version-id']}")
        node.s3("DELETE", "/ver/k", query=f"versionId={ids[2]}")
        assert [contents(f) for f in glob.glob(os.path.join(node.home, "*/ver/k"))] == [b"two"]
        node.fsck()
        info = node.cli("status").stdout
        assert "whole:2+1" in info, info
        assert node.stop() == 0
        node.args = []  # the root knows its drives
        node.start()
        check(node, objects)
        status, _, body = node.s3("GET", "/ver/k", query=f"versionId={ids[0]}")
        assert status == 200 and body == b"one"
        node.fsck()
        for key in objects:
            node.s3("DELETE", f"/bkt/{key}")
        for version in ids[:2]:
            node.s3("DELETE", "/ver/k", query=f"versionId={version}")
        node.wait_for(lambda: not any(data_chunks(d) for d in node.directories()))
        assert not any(tree(d) for d in node.directories())
        node.fsck()


def test_copies_and_slices_cost_what_is_said():
    with whole_pool() as node:
        node.create_bucket("bkt")
        before = sum(occupied(d) for d in node.directories())
        objects = {f"b/{i}": random_bytes(BIG + i, i) for i in range(12)}
        for key, body in objects.items():
            node.put("bkt", key, body)
        stored = sum(len(b) for b in objects.values())
        factor = (sum(occupied(d) for d in node.directories()) - before) / stored
        assert 2.5 <= factor < 2.53, factor
        expect_tree(node, "bkt", objects, copies=1)
        homes = {home_of(node, key)[0] for key in objects}
        assert len(homes) >= 2, "one mountpath is home to all"
        print(f"# overhead of whole:2+1: {factor:.3f}")


def test_a_full_copy_that_is_damaged_deleted_or_changed_is_read_right_and_repaired_in_place():
    with whole_pool() as node:
        node.create_bucket("bkt")
        body = random_bytes(BIG, 7)
        for key in ["rot", "gone", "cut", "mine"]:
            node.put("bkt", key, body)
        # A bad byte: same size, same time.
        _, rot = home_of(node, "rot")
        seen = os.stat(rot)
        with open(rot, "r+b") as f:
            f.seek(3_000_000)
            f.write(bytes([contents(rot)[3_000_000] ^ 1]))
        os.utime(rot, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        assert contents(rot) != body
        _, gone = home_of(node, "gone")
        os.unlink(gone)
        # Theirs from now on: cut short, and rewritten.
        _, cut = home_of(node, "cut")
        os.truncate(cut, 1000)
        _, mine = home_of(node, "mine")
        with open(mine, "wb") as f:
            f.write(b"mine")
        for key in ["rot", "gone", "cut", "mine"]:
            assert node.get("bkt", key) == body, key
            status, _, part = node.s3("GET", f"/bkt/{key}", headers={"range": "bytes=2900000-3100000"})
            assert status == 206 and part == body[2_900_000:3_100_001], key
        node.wait_for(lambda: os.path.exists(gone) and contents(gone) == body and contents(rot) == body)
        node.wait_for(lambda: node.admin("GET", "/v1/status")["repair"]["activity"] == "idle")
        time.sleep(3)
        assert contents(mine) == b"mine" and len(contents(cut)) == 1000, "what somebody wrote is theirs"
        node.fsck()
        # All slices but those of one drive may go now: the copies are whole again, beside changed files too.
        for directory in node.directories():
            for chunk in data_chunks(directory):
                if os.path.basename(chunk).startswith("01") and os.path.getsize(chunk) < 1_100_000 and chunk.endswith("0000"):
                    os.unlink(chunk)
        for key in ["rot", "gone", "cut", "mine"]:
            assert node.get("bkt", key) == body, key
        node.cli("scrub")
        node.wait_for(lambda: node.admin("GET", "/v1/status")["scrub"]["state"] == "idle")
        node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])
        for key in ["rot", "gone"]:
            os.unlink(home_of(node, key)[1])
            assert node.get("bkt", key) == body, key


def test_any_two_mountpaths_of_four_may_be_lost():
    with whole_pool() as node:
        objects = fill(node)
        assert node.stop() == 0
        node.args = []
        directories = node.directories()
        for pair in itertools.combinations(directories, 2):
            for lost in pair:
                os.rename(lost, lost + ".away")
            node.start()
            check(node, objects)
            status, _, part = node.s3("GET", "/bkt/o/5", headers={"range": "bytes=1200000-1300000"})
            assert status == 206 and part == objects["o/5"][1_200_000:1_300_001]
            node.stop()
            for lost in pair:
                os.rename(lost + ".away", lost)
        node.start()
        check(node, objects)
        node.fsck()
        node.stop()
        # And without the root: two drives bring everything back.
        shutil.rmtree(node.root)
        os.mkdir(node.root)
        for lost in directories[1:3]:
            os.rename(lost, lost + ".away")
        node.start("--device", f"dir:{directories[0]}", "--device", f"dir:{directories[3]}")
        check(node, objects)


def test_two_mountpaths_vanish_while_objects_are_read():
    with whole_pool(6) as node:
        objects = fill(node)
        stop, failures, reads = threading.Event(), [], [0]

        def read():
            while not stop.is_set():
                for key, body in objects.items():
                    status, _, got = node.s3("GET", f"/bkt/{key}")
                    if status != 200 or got != body:
                        failures.append((key, status, len(got)))
                    reads[0] += 1

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        node.wait_for(lambda: reads[0] > 30)
        lost = node.directories()[1:3]
        for directory in lost:
            os.rename(directory, directory + ".away")
        node.wait_for(lambda: all(node.drive(n)["state"] in ("disabled", "missing", "failed") for n in (2, 3)))
        node.put("bkt", "meanwhile", b"written with four of six")
        objects = dict(objects, meanwhile=b"written with four of six")
        before = reads[0]
        node.wait_for(lambda: reads[0] > before + 30)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[:3]
        for directory in lost:
            os.rename(directory + ".away", directory)
        for number in (2, 3):
            node.enable_drive(number)
        node.wait_for(lambda: node.admin("GET", "/v1/status")["repair"]["activity"] == "idle")
        node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])
        check(node, objects)
        tree_becomes(node, "bkt", objects, copies=1)


def test_mountpaths_come_and_go_under_writes():
    with whole_pool(5) as node:
        node.create_bucket("bkt")
        stop, failures, objects = threading.Event(), [], {}

        def work(worker):
            i = 0
            while not stop.is_set():
                i += 1
                key, body = f"w{worker}/{i}", random_bytes([900, 40_000, 1_500_000][i % 3], worker * 1000 + i)
                status, _, text = node.s3("PUT", f"/bkt/{key}", body)
                if status == 200:
                    objects[key] = body
                elif status not in (500, 503):
                    failures.append((status, text[:200]))

        threads = [threading.Thread(target=work, args=(w,)) for w in range(3)]
        for thread in threads:
            thread.start()

        def writes_go_on():
            before = len(objects)
            node.wait_for(lambda: len(objects) > before + 7)
        writes_go_on()
        first = node.directories()[0]
        os.rename(first, first + ".away")
        node.wait_for(lambda: node.drive(1)["state"] in ("disabled", "missing", "failed"))
        node.kinds.append("dir")
        node.cli("device", "add", node.make("dir", 5))
        writes_go_on()
        os.rename(first + ".away", first)
        node.enable_drive(1)
        node.cli("device", "drain", "2")
        writes_go_on()
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[:3]
        second = node.directories()[1]
        node.wait_for(lambda: shows_nothing(second) and not data_chunks(second))
        node.wait_for(lambda: node.cli("device", "remove", "2", check=False).returncode == 0)  # the map follows the data
        node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])
        check(node, objects)
        tree_becomes(node, "bkt", objects, copies=1)


def test_kill_9_of_a_pool_of_copies_and_slices():
    with whole_pool() as node:
        node.create_bucket("bkt")
        acknowledged, gone, tried = {}, set(), {}
        for cycle in range(4):
            stop = threading.Event()

            def work(worker):
                i = 0
                while not stop.is_set():
                    i += 1
                    key, body = f"c{cycle}/w{worker}/{i}", random_bytes([0, 500, 40_000, 1_300_000][i % 4], cycle * 10_000 + worker * 1000 + i)
                    tried[key] = body
                    try:
                        if node.s3("PUT", f"/bkt/{key}", body)[0] != 200:
                            continue
                        acknowledged[key] = body
                        if i % 5 == 0:
                            del acknowledged[key]
                            if node.s3("DELETE", f"/bkt/{key}")[0] == 204:
                                gone.add(key)
                    except (OSError, http.client.HTTPException):
                        return

            threads = [threading.Thread(target=work, args=(w,)) for w in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1.5)
            node.wait_for(lambda: len(acknowledged) > 12 * (cycle + 1))
            node.kill()
            stop.set()
            for thread in threads:
                thread.join()
            node.start()
            listed, after = [], ""
            while True:
                _, _, text = node.s3("GET", "/bkt", query="list-type=2&max-keys=1000" + (f"&start-after={urllib.parse.quote(after, safe='')}" if after else ""))
                page = [e.text for e in xml.fromstring(text).iter() if e.tag.endswith("}Key")]
                if not page:
                    break
                listed += page
                after = page[-1]
            assert set(acknowledged) <= set(listed), sorted(set(acknowledged) - set(listed))[:3]
            assert not gone & set(listed), sorted(gone & set(listed))[:3]
            check(node, {key: tried[key] for key in listed})
            node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])
            tree_becomes(node, "bkt", {key: tried[key] for key in listed}, copies=1)
        assert len(acknowledged) > 40, len(acknowledged)


def test_a_bucket_of_a_mixed_pool_has_copies_and_slices():
    with Pool(["raw", "kfs", "dir", "raw", "dir"]) as node:
        node.create_bucket("bkt")
        node.cli("bucket", "set", "bkt", "--redundancy", "whole:2+1", "--inline-limit", "0")
        assert "whole:2+1" in node.cli("bucket", "info", "bkt").stdout
        objects = {f"o/{i}": random_bytes([1, 4096, 300_000, 2_000_000][i % 4], i) for i in range(32)}
        for key, body in objects.items():
            node.put("bkt", key, body)
        node.kill()
        node.start()
        check(node, objects)
        node.fsck()
        files = {}
        for directory in node.directories():
            files.update({path.partition("/")[2]: body for path, body in tree(directory).items()})
        assert 0 < len(files) < len(objects) and all(objects[key] == body for key, body in files.items()), len(files)
        for directory in node.directories():
            os.rename(directory, directory + ".away")
        node.wait_for(lambda: all(node.drive(n)["state"] != "active" for n in (3, 5)))
        check(node, objects)
        for directory in node.directories():
            os.rename(directory + ".away", directory)


def test_too_few_drives_for_slices_are_named():
    if NO_NODE:
        raise Skip(NO_NODE)
    home = scratch()
    try:
        devices = [a for i in range(3) for a in ("--device", f"dir:{home}/d{i}")]
        done = subprocess.run([BINARY, "up", "--root", f"{home}/root", *devices, "--profile", "whole:2+1"], capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and "needs 4 drives or failure domains, there are 3: add 1" in done.stderr + done.stdout, done
    finally:
        shutil.rmtree(home)
    with whole_pool() as node:
        node.create_bucket("bkt")
        refused = node.cli("bucket", "set", "bkt", "--redundancy", "whole:3+2", check=False)
        assert refused.returncode != 0 and "needs 6 drives or failure domains, there are 4: add 2" in refused.stderr, refused.stderr
        refused = node.cli("bucket", "set", "bkt", "--redundancy", "whole:2", check=False)
        assert refused.returncode != 0 and "whole:2+1" in refused.stderr, refused.stderr
        assert json.loads(node.cli("device", "list", "--json").stdout)
