"""Drives of every kind: kfs, dir and raw, alone and mixed in one pool; files that are read without Quarry; adopt."""
import glob
import hashlib
import http.client
import json
import os
import random
import shutil
import subprocess
import threading
import time
import urllib.parse
import xml.etree.ElementTree as xml

from node import BINARY, Node, random_bytes, scratch

SIZES = [0, 1, 4096, 100_000, 1_000_000, 5_000_001]
POOLS = {"kfs": ["kfs"] * 3, "dir": ["dir"] * 3, "mixed": ["raw", "kfs", "dir", "raw", "dir"]}


class Pool(Node):
    """A node on drives of these kinds, in a folder of their own."""

    def __init__(self, kinds, *args):
        self.home = scratch()
        self.kinds = kinds
        devices = []
        for i, kind in enumerate(kinds):
            devices += ["--device", self.make(kind, i)]
        super().__init__(*devices, *args)

    def make(self, kind, i):
        path = os.path.join(self.home, f"{kind}-{i}")
        if kind == "raw":
            with open(path, "wb") as f:
                f.truncate(1 << 30)
            return path
        return f"{kind}:{path}"

    def directories(self, kind="dir"):
        return [os.path.join(self.home, f"{k}-{i}") for i, k in enumerate(self.kinds) if k == kind]

    def __exit__(self, *details):
        super().__exit__(*details)
        shutil.rmtree(self.home, ignore_errors=True)

    def drive(self, number):
        return next(d for d in self.admin("GET", "/v1/status")["drives"] if d["number"] == number)

    def wait_for(self, what, seconds=120):
        """The time is for machines that are slow or busy; a sound one needs little of it."""
        deadline = time.time() + seconds
        while not what():
            assert time.time() < deadline, f"not within {seconds} s"
            time.sleep(0.2)


    def enable_drive(self, number):
        """As an operator does it: again, should the drive be busy with what failed."""
        said = []

        def enabled():
            said[:] = [self.cli("device", "enable", str(number), check=False)]
            return said[0].returncode == 0
        try:
            self.wait_for(enabled)
        except AssertionError:
            raise AssertionError(f"drive {number} cannot be enabled: {said[0].stderr}") from None


def tree(directory):
    """What a person finds: path -> bytes. Quarry's own folder is hidden."""
    found = {}
    for folder, folders, files in os.walk(directory):
        if ".quarry" in folders:
            folders.remove(".quarry")
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, directory)] = f.read()
    return found


def multipart(node, bucket, key, parts):
    _, _, answer = node.s3("POST", f"/{bucket}/{key}", query="uploads")
    upload = next(e.text for e in xml.fromstring(answer).iter() if e.tag.endswith("UploadId"))
    etags = []
    for number, part in enumerate(parts, 1):
        status, headers, text = node.s3("PUT", f"/{bucket}/{key}", part, query=f"partNumber={number}&uploadId={upload}")
        assert status == 200, text[:300]
        etags.append(headers["etag"])
    listed = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in enumerate(etags, 1))
    status, _, text = node.s3("POST", f"/{bucket}/{key}", f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode(), query=f"uploadId={upload}")
    assert status == 200 and b"<Error>" not in text, text[:300]
    digest = hashlib.md5(b"".join(hashlib.md5(p).digest() for p in parts)).hexdigest()
    return f'"{digest}-{len(parts)}"'


def work_through(node):
    """Every operation a client uses; returns what must be there afterwards."""
    node.create_bucket("bkt")
    objects = {}
    for size in SIZES:
        objects[f"size/{size}"] = random_bytes(size, size + 1)
        node.put("bkt", f"size/{size}", objects[f"size/{size}"])
    for key in ["a", "a/b", "a/b/c", "with space/and+plus", "dots/../x", "percent%41", "\u00e4\u00f6/\u00fc", "x" * 300]:
        objects[key] = key.encode()
        node.put("bkt", key, objects[key])
    node.put("bkt", "size/1", b"again")
    objects["size/1"] = b"again"
    node.put("bkt", "gone", b"soon")
    status, _, _ = node.s3("DELETE", "/bkt/gone")
    assert status == 204
    parts = [random_bytes(5 << 20, 1), random_bytes(5 << 20, 2), random_bytes(1234, 3)]
    etag = multipart(node, "bkt", "multi", parts)
    objects["multi"] = b"".join(parts)
    status, headers, _ = node.s3("HEAD", "/bkt/multi")
    assert status == 200 and headers["etag"] == etag, (headers, etag)
    status, headers, body = node.s3("GET", "/bkt/multi", query="partNumber=2")
    assert status == 206 and body == parts[1], status
    status, _, text = node.s3("PUT", "/bkt/copied", headers={"x-amz-copy-source": "/bkt/multi"})
    assert status == 200, text[:300]
    objects["copied"] = objects["multi"]
    status, _, body = node.s3("GET", "/bkt/size/1000000", headers={"range": "bytes=70000-70099"})
    assert status == 206 and body == objects["size/1000000"][70000:70100]
    check(node, objects)
    status, _, text = node.s3("GET", "/bkt", query="list-type=2&max-keys=1000")
    listed = [e.text for e in xml.fromstring(text).iter() if e.tag.endswith("}Key")]
    assert listed == sorted(objects, key=lambda k: k.encode()), set(listed) ^ set(objects)
    return objects


def check(node, objects):
    for key, body in objects.items():
        assert node.get("bkt", key) == body, f"{key} differs"


def work_with_versions(node):
    node.create_bucket("ver")
    node.admin("POST", "/v1/buckets/ver", {"versioning": "enabled"})
    ids = []
    for text in [b"one", b"two", b"three"]:
        status, headers, _ = node.s3("PUT", "/ver/k", text)
        assert status == 200
        ids.append(headers["x-amz-version-id"])
    for version, text in zip(ids, [b"one", b"two", b"three"]):
        status, _, body = node.s3("GET", "/ver/k", query=f"versionId={version}")
        assert status == 200 and body == text
    return ids


def life(kind):
    with Pool(POOLS[kind]) as node:
        objects = work_through(node)
        ids = work_with_versions(node)
        node.fsck()
        assert [d["kind"] for d in node.admin("GET", "/v1/status")["drives"]] == POOLS[kind]
        listed = json.loads(node.cli("device", "list", "--json").stdout)
        assert [d["kind"] for d in listed if "number" in d] == POOLS[kind], listed
        assert node.stop() == 0
        node.args = []  # the root knows its drives
        node.start()
        check(node, objects)
        status, _, body = node.s3("GET", "/ver/k", query=f"versionId={ids[0]}")
        assert status == 200 and body == b"one"
        node.fsck()
        assert node.stop() == 0
        for i, which in enumerate(POOLS[kind]):
            path = node.make(which, i) if which != "raw" else os.path.join(node.home, f"raw-{i}")
            subprocess.run([BINARY, "device", "fsck", path], check=True, capture_output=True)
            shown = subprocess.run([BINARY, "device", "inspect", path], check=True, capture_output=True, text=True).stdout
            assert len(shown) > 50, shown


def test_the_life_of_a_pool_of_kfs():
    life("kfs")


def test_the_life_of_a_pool_of_dir():
    life("dir")


def test_the_life_of_a_mixed_pool():
    life("mixed")


def kill_loop(kind, cycles=3):
    with Pool(POOLS[kind]) as node:
        node.create_bucket("bkt")
        acknowledged, settled = {}, set()
        lock = threading.Lock()
        for cycle in range(cycles):
            stop = threading.Event()

            def work(worker):
                rng = random.Random(cycle * 100 + worker)
                while not stop.is_set():
                    key = f"w{worker}/{rng.randrange(20)}"
                    deleted = rng.random() < 0.1
                    body = None if deleted else random_bytes(rng.choice([0, 10, 20_000, 300_000, 2_000_000]), rng.random())
                    with lock:
                        acknowledged[key] = acknowledged.get(key, [None]) + [body]
                    try:
                        status, _, _ = node.s3("DELETE" if deleted else "PUT", f"/bkt/{key}", body or b"")
                    except OSError:
                        return
                    if status in (200, 204):
                        with lock:
                            acknowledged[key] = [body]
                            settled.add(key)

            threads = [threading.Thread(target=work, args=(w,)) for w in range(4)]
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
                found = body if status == 200 else None
                assert status in (200, 404), f"{key}: {status}"
                assert found in candidates, f"{key}: {status}, not what was written last"
                acknowledged[key] = [found]
        time.sleep(6)  # the sweep of what the crashes left
        node.fsck()
        if kind == "dir":
            objects = {k: v[0] for k, v in acknowledged.items() if v[0] is not None}
            tree_becomes(node, "bkt", objects, copies=2)
            assert node.stop() == 0
            expect_tree(node, "bkt", objects, copies=2)


def overwritten_and_killed(kinds, *args):
    """Overwrites and deletes of few keys, the node killed between: each readable path shows the current version and no other."""
    with Pool(kinds, *args) as node:
        for bucket, versioning in (("plain", None), ("ver", "enabled")):
            node.create_bucket(bucket)
            node.cli("bucket", "set", bucket, "--redundancy", "mirror:2", *(["--versioning", versioning] if versioning else []))
        mixed, answers = any(k != "dir" for k in kinds), 0
        for cycle in range(6):
            stop = threading.Event()
            done = [0] * 6

            def work(worker):
                rng = random.Random(cycle * 100 + worker)
                while not stop.is_set():
                    path = f"/{rng.choice(['plain', 'ver', 'ver'])}/d{worker}/{rng.randrange(3)}"
                    body = b"" if rng.random() < 0.15 else rng.randbytes(rng.choice([3, 5000, 70_000, 400_000]))
                    try:
                        status, _, _ = node.s3("PUT" if body else "DELETE", path, body)
                    except (OSError, http.client.HTTPException):
                        return
                    done[worker] += status in (200, 204)

            threads = [threading.Thread(target=work, args=(w,)) for w in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(0.6 + 0.1 * cycle)
            node.kill()
            stop.set()
            for thread in threads:
                thread.join()
            answers += sum(done)
            node.start()
            current = {}
            for bucket in ("plain", "ver"):
                for key in (f"d{w}/{i}" for w in range(6) for i in range(3)):
                    status, _, body = node.s3("GET", f"/{bucket}/{key}")
                    assert status in (200, 404), (key, status)
                    if status == 200:
                        current[f"{bucket}/{key}"] = body

            def differs():
                found = {}
                for directory in node.directories():
                    for path, body in tree(directory).items():
                        found.setdefault(path, []).append(body)
                wrong = {p: [len(b) for b in bodies] for p, bodies in found.items() if any(b != current.get(p) for b in bodies)}
                if not mixed:
                    wrong.update({p: len(found.get(p, [])) for p in current if len(found.get(p, [])) != 2})
                return wrong

            deadline = time.time() + 60  # the sweep of what the crash left
            while (wrong := differs()) and time.time() < deadline:
                time.sleep(0.2)
            assert not wrong, f"cycle {cycle}: shown and not current: {wrong}"
            assert set(current) or mixed, "nothing was written"
        print(f"   {kinds}: {answers} overwrites and deletes in 6 lives", flush=True)
        node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])


def test_kill_9_between_a_commit_and_its_change_of_names():
    overwritten_and_killed(["dir"] * 4)


def test_kill_9_between_a_commit_and_its_change_of_names_in_a_mixed_pool():
    overwritten_and_killed(["dir", "raw", "dir", "kfs"])


def test_kill_9_of_a_pool_of_kfs():
    kill_loop("kfs")


def test_kill_9_of_a_pool_of_dir():
    kill_loop("dir")


def test_kill_9_of_a_mixed_pool():
    kill_loop("mixed")


def key_of(path):
    """The key that a path of the open format stands for (docs/formats/dir.md)."""
    parts = path.replace("%+/", "").split("/")
    parts[-1] = parts[-1][:-2] if parts[-1].endswith("%=") else parts[-1]
    return "/".join("" if p == "%_" else urllib.parse.unquote(p) for p in parts)


def expect_tree(node, bucket, objects, copies):
    """The files of all mountpaths are the objects, each so many times, and nothing else."""
    found = {}
    for directory in node.directories():
        for path, body in tree(directory).items():
            top, _, key = path.partition("/")
            assert top == bucket, path
            found.setdefault(key_of(key), []).append(body)
    assert sorted(found) == sorted(objects), set(found) ^ set(objects)
    for key, bodies in found.items():
        assert bodies == [objects[key]] * copies, f"{key}: {len(bodies)} files of {[len(b) for b in bodies]} bytes, object of {len(objects[key])}"


def tree_becomes(node, bucket, objects, copies):
    """expect_tree, once what a crash or a drive that was away left behind is settled."""
    deadline = time.time() + 120
    while True:
        try:
            return expect_tree(node, bucket, objects, copies)
        except (AssertionError, OSError):
            if time.time() > deadline:
                raise
        time.sleep(0.5)


def test_uninstalled_the_data_is_still_there():
    with Pool(POOLS["dir"]) as node:
        objects = work_through(node)
        assert node.stop() == 0
        shutil.rmtree(node.root)
        for directory in node.directories():
            shutil.rmtree(os.path.join(directory, ".quarry"))
        expect_tree(node, "bkt", objects, copies=2)
        archive = subprocess.run(["tar", "-cf", "-", "-C", node.directories()[0], "."], check=True, capture_output=True).stdout
        assert len(archive) > 1000
        os.mkdir(node.root)


def test_the_tree_follows_versions_and_delete_markers():
    with Pool(["dir", "dir"]) as node:
        ids = work_with_versions(node)
        first = node.directories()[0]
        assert tree(first) == {"ver/k": b"three"}, tree(first)
        status, headers, _ = node.s3("DELETE", "/ver/k")
        assert status == 204
        assert tree(first) == {}, tree(first)
        marker = headers["x-amz-version-id"]
        node.s3("DELETE", "/ver/k", query=f"versionId={marker}")
        assert tree(first) == {"ver/k": b"three"}, tree(first)
        node.s3("DELETE", "/ver/k", query=f"versionId={ids[2]}")
        assert tree(first) == {"ver/k": b"two"}, tree(first)
        status, _, body = node.s3("GET", "/ver/k", query=f"versionId={ids[0]}")
        assert status == 200 and body == b"one"


def disable_and_enable(kind):
    with Pool(POOLS[kind]) as node:
        node.create_bucket("bkt")
        objects = {f"k{i}": random_bytes(50_000, i) for i in range(20)}
        for key, body in objects.items():
            node.put("bkt", key, body)
        node.cli("device", "disable", "2")
        assert node.drive(2)["state"] == "disabled", node.drive(2)
        for i in range(20, 40):
            objects[f"k{i}"] = random_bytes(50_000, i)
            node.put("bkt", f"k{i}", objects[f"k{i}"])
        check(node, objects)
        node.stop()
        node.start()
        assert node.drive(2)["state"] == "disabled", node.drive(2)
        check(node, objects)
        node.cli("device", "enable", "2")
        assert node.drive(2)["state"] == "active", node.drive(2)
        node.wait_for(lambda: node.admin("GET", "/v1/status")["repair"]["pending_writes"] == 0)
        time.sleep(6)
        check(node, objects)
        node.fsck()


def test_a_kfs_drive_is_disabled_and_enabled():
    disable_and_enable("kfs")


def test_a_dir_drive_is_disabled_and_enabled():
    disable_and_enable("dir")


def test_a_drive_of_a_mixed_pool_is_disabled_and_enabled():
    disable_and_enable("mixed")


def removed_under_load(kind):
    with Pool(POOLS[kind]) as node:
        node.create_bucket("bkt")
        stop, failures, objects = threading.Event(), [], {}

        def work(worker):
            i = 0
            while not stop.is_set():
                i += 1
                key, body = f"w{worker}/{i}", random_bytes(30_000, worker * 1000 + i)
                try:
                    status, _, text = node.s3("PUT", f"/bkt/{key}", body)
                except OSError as error:
                    failures.append(repr(error))
                    return
                if status == 200:
                    objects[key] = body
                elif status not in (500, 503):
                    failures.append((status, text[:200]))

        threads = [threading.Thread(target=work, args=(w,)) for w in range(3)]
        for thread in threads:
            thread.start()
        node.wait_for(lambda: len(objects) > 15)
        victim = POOLS[kind].index("kfs" if kind == "kfs" else "dir")
        lost = os.path.join(node.home, f"{POOLS[kind][victim]}-{victim}")
        os.rename(lost, lost + ".away")
        node.wait_for(lambda: node.drive(victim + 1)["state"] in ("disabled", "missing", "failed"))
        before = len(objects)
        node.wait_for(lambda: len(objects) > before + 5)  # writes go on without it
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[:3]
        assert len(objects) > 20
        check(node, objects)  # nothing acknowledged is lost
        assert node.drive(victim + 1)["reason"], node.drive(victim + 1)
        assert "cluster_drives_disabled_total" in node.s3("GET", "/metrics", where="admin")[2].decode()
        refused = node.cli("device", "enable", str(victim + 1), check=False)
        assert refused.returncode != 0 and lost in refused.stderr, refused.stderr
        os.rename(lost + ".away", lost)
        node.enable_drive(victim + 1)
        assert node.drive(victim + 1)["state"] == "active"
        node.put("bkt", "after", b"after")
        node.wait_for(lambda: node.admin("GET", "/v1/status")["repair"]["activity"] == "idle")
        time.sleep(8)
        check(node, objects)
        node.fsck()


def test_a_kfs_directory_removed_under_load():
    removed_under_load("kfs")


def test_a_mountpath_removed_under_load():
    removed_under_load("dir")


def test_drives_are_added_drained_and_removed_while_requests_run():
    with Pool(["dir", "dir", "dir"]) as node:
        objects = work_through(node)
        new = os.path.join(node.home, "dir-9")
        node.cli("device", "add", f"dir:{new}")
        node.cli("device", "drain", "1")
        node.wait_for(lambda: tree(node.directories()[0]) == {})
        check(node, objects)
        node.wait_for(lambda: node.cli("device", "remove", "1", check=False).returncode == 0)
        expect_moved = {}
        for directory in node.directories() + [new]:
            for path in tree(directory):
                expect_moved[path] = expect_moved.get(path, 0) + 1
        assert set(expect_moved.values()) == {2} and len(expect_moved) == len(objects), expect_moved
        assert node.stop() == 0
        node.args = []
        node.start()
        check(node, objects)
        node.fsck()


def test_one_full_drive_does_not_stop_writes():
    with Pool(["kfs", "kfs"], "--profile", "mirror:2") as node:
        node.stop()
        small = os.path.join(node.home, "small")
        with open(small, "wb") as f:
            f.truncate(64 << 20)
        node.start()
        node.cli("device", "add", small)
        node.create_bucket("bkt")
        for i in range(120):
            node.put("bkt", f"k{i}", random_bytes(1_000_000, i))
        for i in range(120):
            assert node.get("bkt", f"k{i}") == random_bytes(1_000_000, i)
        node.fsck()


def write_tree(directory, files):
    for path, body in files.items():
        full = os.path.join(directory, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(body)


def test_adopt_makes_a_tree_a_bucket_in_place():
    with Pool(["dir", "dir"]) as node:
        mountpath = node.directories()[0]
        files = {"one.txt": b"one", "sub/two.bin": random_bytes(3_000_000, 2), "sub/deep/empty": b"", "sp ace": b"x", "a%41": b"percent"}
        write_tree(os.path.join(mountpath, "photos"), files)
        before = {p: os.stat(os.path.join(mountpath, "photos", p)) for p in files}
        refused = node.cli("adopt", "/var/tmp", "photos", check=False)
        assert refused.returncode != 0 and "adopt --attach /var/tmp" in refused.stderr, refused.stderr
        done = json.loads(node.cli("adopt", os.path.join(mountpath, "photos"), "photos", "--json").stdout)
        assert done["adopted"] == len(files) and done["failed"] == 0, done
        for path, body in files.items():
            status, headers, got = node.s3("GET", f"/photos/{path}")
            assert status == 200 and got == body, (path, status)
            assert headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"', path
            after = os.stat(os.path.join(mountpath, "photos", path))
            assert (after.st_ino, after.st_mtime_ns) == (before[path].st_ino, before[path].st_mtime_ns), f"{path} was touched"
        again = json.loads(node.cli("adopt", os.path.join(mountpath, "photos"), "photos", "--json").stdout)
        assert again["adopted"] == 0 and again["unchanged"] == len(files), again
        # Behind its back: one changed, one new, one gone.
        with open(os.path.join(mountpath, "photos/one.txt"), "wb") as f:
            f.write(b"changed by hand")
        status, _, text = node.s3("GET", "/photos/one.txt")
        assert status >= 500, (status, text[:300])
        assert b"changed by hand" not in text and text != b"one"
        write_tree(os.path.join(mountpath, "photos"), {"new": b"new"})
        os.unlink(os.path.join(mountpath, "photos/sp ace"))
        third = json.loads(node.cli("adopt", os.path.join(mountpath, "photos"), "photos", "--json").stdout)
        assert (third["adopted"], third["changed"], third["vanished"]) == (2, 1, 1) and "sp ace" in third["problems"][0], third
        assert node.s3("GET", "/photos/sp%20ace".replace("%20", " "))[0] >= 500
        assert node.get("photos", "one.txt") == b"changed by hand" and node.get("photos", "new") == b"new"
        node.stop()
        node.start()
        assert node.get("photos", "one.txt") == b"changed by hand"
        for path in ["sub/two.bin", "sub/deep/empty", "a%41"]:
            assert node.get("photos", path) == files[path]
        status, _, _ = node.s3("DELETE", "/photos/one.txt")
        assert status == 204
        node.wait_for(lambda: not os.path.exists(os.path.join(mountpath, "photos/one.txt")))


def test_adopt_attaches_a_directory_and_survives_kill_9():
    with Pool(["dir", "dir"]) as node:
        data = os.path.join(node.home, "existing")
        files = {f"d{i % 7}/f{i}": random_bytes(1000 + i, i) for i in range(600)}
        write_tree(data, files)
        process = subprocess.Popen([BINARY, "adopt", "--attach", data, "bkt", "--root", node.root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.4)
        node.kill()
        process.wait()
        assert {p: b for p, b in tree(data).items()} == files, "a crash touched the files"
        node.start()
        node.cli("adopt", "--attach", data, "bkt")
        for path, body in files.items():
            assert node.get("bkt", path) == body, path
        assert tree(data) == files
        node.fsck()


def test_a_file_changed_behind_its_back_is_answered_from_the_other_copy():
    with Pool(["dir", "dir"]) as node:
        node.create_bucket("bkt")
        body = random_bytes(200_000, 1)
        node.put("bkt", "k", body)
        node.stop()
        node.start("--cache-size", "1MiB")
        with open(os.path.join(node.directories()[0], "bkt/k"), "r+b") as f:
            f.seek(100)
            f.write(b"edited")
        for _ in range(6):
            assert node.get("bkt", "k") == body
        time.sleep(7)  # repair: the copy is made whole beside the file, which belongs to whoever changed it
        for _ in range(6):
            assert node.get("bkt", "k") == body
        edited = tree(node.directories()[0])["bkt/k"]
        assert edited[100:106] == b"edited" and len(edited) == len(body)
        assert tree(node.directories()[1]) == {"bkt/k": body}
        node.fsck()
