"""quarry adopt as a new user meets it, and quarry bucket rewrite: existing objects get the redundancy of their bucket."""
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as xml

from cases_drive_kinds import Pool, tree, write_tree
from faults import Disk, needs_mounts
from node import BINARY, Node, Skip, random_bytes


def adopt(node, directory, bucket, *more, check=True):
    done = node.cli("adopt", directory, bucket, "--json", *more, check=check)
    return json.loads(done.stdout) if check else done


def rewrite(node, bucket, *more, check=True):
    done = node.cli("bucket", "rewrite", bucket, "--json", *more, check=check)
    return json.loads(done.stdout) if check else done


def test_adopt_takes_odd_trees():
    with Pool(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "odd")
        os.makedirs(data)
        base = os.fsencode(data)
        odd = [b"sp ace", b"new\nline", "umlaut-\u00e4".encode(), b"percent%41", b"quote\"'", b"-dash", b"back\\slash", b"dot.", b"x" * 250]
        for name in odd:
            with open(os.path.join(base, name), "wb") as f:
                f.write(b"content of " + name)
        folder = "dir-\u00fc".encode()
        os.makedirs(os.path.join(base, folder))
        for i in range(1100):  # more than a step
            with open(os.path.join(base, folder, b"%04d-\xc3\xa4" % i), "wb") as f:
                f.write(b"%d" % i)
        write_tree(data, {"empty": b"", "deep/" + "/".join("abcdefgh"): b"deep"})
        with open(os.path.join(data, "sparse"), "wb") as f:
            f.truncate(3 << 30)
            f.seek(1 << 30)
            f.write(b"in the middle")
        os.symlink("empty", os.path.join(data, "link"))
        os.symlink("/nowhere", os.path.join(data, "dangling"))
        os.mkfifo(os.path.join(data, "pipe"))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.path.join(data, "sock"))
        # Names that are no text cannot be keys: a listing could not hold them.
        wrong = [b"non-utf8-\xff\xfe", b"control-\x01", b"overlong-\xc0\xaf", b"surrogate-\xed\xa0\x80"]
        for name in wrong:
            with open(os.path.join(base, name), "wb") as f:
                f.write(b"content of " + name)
        before = {p: os.lstat(os.path.join(base, p)).st_mtime_ns for p in os.listdir(base)}
        done = adopt(node, data, "odd", check=False)
        assert done.returncode != 0, done
        done = json.loads(done.stdout)
        assert done["adopted"] == len(odd) + 1100 + 3 and done["failed"] == len(wrong) and done["skipped"] == 4, done
        assert any("symbolic link" in p for p in done["problems"]) and any("no UTF-8 text" in p for p in done["problems"]), done
        listed = [e.text for e in xml.fromstring(node.s3("GET", "/odd", query="list-type=2")[2]).iter() if e.tag.endswith("}Key")]
        assert len(listed) == 1000, len(listed)
        assert {p: os.lstat(os.path.join(base, p)).st_mtime_ns for p in os.listdir(base)} == before
        for name in odd:
            status, headers, body = node.s3("GET", b"/odd/" + name)
            assert status == 200 and body == b"content of " + name, (name, status)
        status, headers, _ = node.s3("HEAD", "/odd/sparse")
        assert status == 200 and int(headers["content-length"]) == 3 << 30
        status, _, body = node.s3("GET", "/odd/sparse", headers={"range": f"bytes={1 << 30}-{(1 << 30) + 12}"})
        assert status == 206 and body == b"in the middle", (status, body)
        for name in wrong:
            os.rename(os.path.join(base, name), os.path.join(base, b"right-" + name[:4]))
        again = adopt(node, data, "odd")
        assert again["adopted"] == len(wrong) and again["unchanged"] == done["adopted"], again
        assert os.stat(os.path.join(data, "sparse")).st_blocks < 1 << 16, "it is still sparse"


def test_adopt_leaves_files_with_several_names_alone():
    with Pool(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "linked")
        write_tree(data, {"a": b"one content", "alone": b"another"})
        os.link(os.path.join(data, "a"), os.path.join(data, "b"))
        done = adopt(node, data, "bkt", check=False)
        report = json.loads(done.stdout)
        assert done.returncode != 0 and report["adopted"] == 1 and report["failed"] == 2, report
        assert all("hard links" in p for p in report["problems"]), report
        assert node.s3("GET", "/bkt/a")[0] == 404
        with open(os.path.join(data, "b"), "rb") as f:
            assert f.read() == b"one content"
        os.unlink(os.path.join(data, "b"))
        again = adopt(node, data, "bkt")
        assert again["adopted"] == 1 and node.get("bkt", "a") == b"one content", again


class Unprivileged(Pool):
    """A node of an ordinary user."""

    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    def start(self, *more, wait=True):
        if os.geteuid() != 0:
            self.prefix = ()
        else:
            for folder in (self.home, self.root):
                for path, _, names in os.walk(folder):
                    for each in [path, *(os.path.join(path, n) for n in names)]:
                        os.chown(each, 65534, 65534, follow_symlinks=False)
        return super().start(*more, wait=wait)


def test_adopt_passes_over_what_it_may_not_read_and_the_drive_stays_well():
    with Unprivileged(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "mixed")
        write_tree(data, {"good": b"good", "secret": b"secret", "readonly": b"readonly", "closed/inside": b"inside"})
        if os.geteuid() == 0:
            for path, _, names in os.walk(data):
                for each in [path, *(os.path.join(path, n) for n in names)]:
                    os.chown(each, 65534, 65534)
            os.chown(os.path.join(data, "secret"), 0, 0)
            os.chown(os.path.join(data, "closed"), 0, 0)
        os.chmod(os.path.join(data, "secret"), 0)
        os.chmod(os.path.join(data, "closed"), 0o700 if os.geteuid() == 0 else 0)
        os.chmod(os.path.join(data, "readonly"), 0o444)
        done = adopt(node, data, "bkt", check=False)
        report = json.loads(done.stdout)
        assert done.returncode != 0 and report["adopted"] == 1 and report["failed"] == 2 and report["skipped"] == 1, report
        assert any("secret" in p and "chmod or chown" in p for p in report["problems"]), report
        assert any("closed" in p and "may not read" in p for p in report["problems"]), report
        node.create_bucket("more")
        node.put("more", "k", b"still written")
        assert all(d["state"] == "active" and not d["reason"] for d in node.admin("GET", "/v1/status")["drives"])
        node.stop()
        node.start()  # chowns all
        os.chmod(os.path.join(data, "secret"), 0o600)
        os.chmod(os.path.join(data, "closed"), 0o700)
        os.chmod(os.path.join(data, "readonly"), 0o644)
        again = adopt(node, data, "bkt")
        assert again["adopted"] == 3 and again["unchanged"] == 1, again
        node.fsck()


def test_adopt_refuses_files_whose_directory_is_closed_and_deleting_leaves_what_may_not_be_removed():
    if os.geteuid() == 0 and subprocess.run(["setpriv", "--version"], capture_output=True).returncode != 0:
        raise Skip("setpriv is missing")
    with Unprivileged(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "data")
        write_tree(data, {"open/a": b"a", "open/b": b"b", "closed/c": b"c"})
        if os.geteuid() == 0:
            for path, _, names in os.walk(data):
                for each in [path, *(os.path.join(path, n) for n in names)]:
                    os.chown(each, 65534, 65534)
        os.chmod(os.path.join(data, "closed"), 0o555)
        done = adopt(node, data, "bkt", check=False)
        report = json.loads(done.stdout)
        assert report["adopted"] == 2 and report["failed"] == 1, report
        assert any("closed/c" in p and "neither replaced nor deleted" in p for p in report["problems"]), report
        os.chmod(os.path.join(data, "open"), 0o555)
        status, _, text = node.s3("DELETE", "/bkt/open/a")
        assert status == 204, text
        node.wait_for(lambda: "may not be removed" in open(node.log.name, errors="replace").read(), 30)
        node.put("bkt", "more", b"still written")
        assert all(d["state"] == "active" and not d["reason"] for d in node.admin("GET", "/v1/status")["drives"])
        assert tree(data) == {"open/a": b"a", "open/b": b"b", "closed/c": b"c"}
        assert node.get("bkt", "open/b") == b"b" and node.s3("HEAD", "/bkt/open/a")[0] == 404
        for name in ("open", "closed"):
            os.chmod(os.path.join(data, name), 0o755)
        assert adopt(node, data, "bkt")["adopted"] == 2
        assert node.get("bkt", "open/a") == b"a"
        node.fsck()


def test_a_file_system_mounted_inside_a_mountpath_is_none_of_its_own():
    needs_mounts()
    inner = Disk(64 << 20)
    try:
        inner.unmount()
        with Pool(["dir", "dir"]) as node:
            first, second = node.directories()
            node.create_bucket("bkt")
            for key in ("usb/early", "beside"):
                node.put("bkt", key, b"early")
            inner.path = os.path.join(first, "bkt/usb")
            inner.mount()
            write_tree(inner.path, {"x": b"theirs", "album/1": b"one", "album/2": b"two"})
            # Keys below it: kept, readable, shown where they can be; what lies there is not touched.
            bodies = {"usb/x": random_bytes(300_000, 1), "usb/new/y": random_bytes(70_000, 2), "beside": b"later"}
            for key, body in bodies.items():
                node.put("bkt", key, body)
            for key, body in {**bodies, "usb/early": b"early"}.items():
                for _ in range(4):
                    assert node.get("bkt", key) == body, key
            theirs = {"x": b"theirs", "album/1": b"one", "album/2": b"two"}
            assert tree(inner.path) == theirs and tree(second)["bkt/usb/new/y"] == bodies["usb/new/y"]
            assert "unmount it" in open(node.log.name, errors="replace").read()
            assert all(d["state"] == "active" and not d["reason"] for d in node.admin("GET", "/v1/status")["drives"])
            node.put("bkt", "usb/gone", b"soon")
            assert node.s3("DELETE", "/bkt/usb/gone")[0] == 204 and node.s3("DELETE", "/bkt/usb/early")[0] == 204
            # Adopt: the tree around it leaves it out; itself only as a drive of its own.
            write_tree(os.path.join(first, "bkt"), {"foreign": b"foreign"})
            around = adopt(node, os.path.join(first, "bkt"), "bkt")
            assert around["adopted"] == 1 and around["skipped"] == 1 and any("another file system" in p for p in around["problems"]), around
            album = os.path.join(inner.path, "album")
            refused = adopt(node, album, "album", check=False)
            assert refused.returncode != 0 and "drive of its own" in refused.stderr, refused.stderr
            inside = node.cli("device", "add", "dir:" + os.path.join(first, "bkt/more"), check=False)
            assert inside.returncode != 0 and "inside the mountpath" in inside.stderr, inside.stderr
            node.kill()
            node.start()
            for key, body in bodies.items():
                assert node.get("bkt", key) == body, key
            assert tree(inner.path) == theirs
            node.fsck()
            node.stop()
            inner.unmount()
            node.start()
            node.wait_for(lambda: tree(first).get("bkt/usb/new/y") == bodies["usb/new/y"], 30)
            for key, body in bodies.items():
                assert node.get("bkt", key) == body, key
    finally:
        inner.discard()


def test_adopt_leaves_objects_of_the_same_key_alone_and_says_what_to_do():
    with Pool(["dir", "dir"]) as node:
        node.create_bucket("bkt")
        node.put("bkt", "same", b"the object")
        data = os.path.join(node.directories()[0], "files")
        write_tree(data, {"same": b"the file", "other": b"another file"})
        done = adopt(node, data, "bkt", check=False)
        assert done.returncode != 0
        report = json.loads(done.stdout)
        assert report["adopted"] == 1 and report["failed"] == 1 and "--replace" in report["problems"][0], report
        assert node.get("bkt", "same") == b"the object" and node.get("bkt", "other") == b"another file"
        assert tree(data) == {"same": b"the file", "other": b"another file"}
        both = adopt(node, data, "bkt", "--replace", check=False)
        assert "delete that object first" in both.stdout and node.get("bkt", "same") == b"the object", both.stdout
        node.s3("DELETE", "/bkt/same")
        assert adopt(node, data, "bkt")["adopted"] == 1 and node.get("bkt", "same") == b"the file"
        missing = adopt(node, os.path.join(data, "nothing"), "bkt2", check=False)
        assert missing.returncode != 0 and "no directory" in missing.stderr, missing.stderr
        a_file = adopt(node, os.path.join(data, "other"), "bkt2", check=False)
        assert a_file.returncode != 0 and "no directory" in a_file.stderr, a_file.stderr
        elsewhere = adopt(node, "/var/tmp", "bkt2", check=False)
        assert elsewhere.returncode != 0 and "--attach" in elsewhere.stderr, elsewhere.stderr
        assert node.s3("HEAD", "/bkt2")[0] == 404, "a bucket was made for nothing"
        # Inside the tree of another bucket: only what belongs to nobody.
        write_tree(os.path.join(node.directories()[0], "bkt"), {"foreign": b"put there by hand"})
        inside = adopt(node, os.path.join(node.directories()[0], "bkt"), "third")
        assert inside["adopted"] == 1, inside
        assert node.get("third", "foreign") == b"put there by hand"
        node.fsck()


def test_adopt_takes_new_content_of_an_object_with_copies_if_asked():
    with Pool(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "docs")
        write_tree(data, {"a": b"old content", "b": b"other"})
        adopt(node, data, "docs")
        assert rewrite(node, "docs")["in_place"] == 2
        with open(os.path.join(data, "a"), "wb") as f:
            f.write(b"new content, written by hand")
        for _ in range(4):
            assert node.get("docs", "a") == b"old content"  # from the other copy
        node.wait_for(lambda: adopt(node, data, "docs", check=False).returncode != 0)  # once repair let the file go
        assert node.get("docs", "a") == b"old content"
        assert adopt(node, data, "docs", "--replace")["adopted"] == 1
        for _ in range(4):
            assert node.get("docs", "a") == b"new content, written by hand"
        assert tree(data)["a"] == b"new content, written by hand"
        node.fsck()


def test_adopt_ten_thousand_files_interrupted_and_again():
    with Pool(["dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "many")
        files = {f"d{i % 100}/f{i}": b"%d" % i for i in range(10_000)}
        write_tree(data, files)
        # What runs in the background of a script has ^C ignored, and hands that on.
        process = subprocess.Popen([BINARY, "adopt", data, "many", "--root", node.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        shown = b""
        while b"of 10000 files" not in shown:  # the first of them are adopted
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, shown[-300:]
            shown += piece
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode != 0
        began = time.time()
        done = adopt(node, data, "many")
        seconds = time.time() - began
        assert 0 < done["adopted"] < 10_000 and done["adopted"] + done["unchanged"] > 8_000, done  # the interrupted step may still come to its end
        print(f"    {done['adopted']} files adopted, {done['unchanged']} checked in {seconds:.1f} s")
        status = adopt(node, data, "many")
        assert status["adopted"] == 0 and status["unchanged"] == 10_000, status
        for i in range(0, 10_000, 371):
            assert node.get("many", f"d{i % 100}/f{i}") == b"%d" % i
        node.fsck()


def test_rewrite_gives_adopted_files_copies_where_they_lie():
    with Pool(["dir", "dir", "dir"]) as node:
        directories = node.directories()
        data = os.path.join(directories[0], "album/2020")
        files = {f"d{i % 5}/f{i}": random_bytes(100 + 997 * i, i) for i in range(120)}
        files["empty"] = b""
        files["big"] = random_bytes(5_000_000, 5)
        write_tree(data, files)
        adopt(node, data, "photos")
        before = {p: os.stat(os.path.join(data, p)) for p in files}
        heads = {p: node.s3("HEAD", f"/photos/{p}")[1] for p in files}
        done = rewrite(node, "photos")
        assert done["in_place"] == len(files) and done["copied"] == 0 and done["waiting"] == 0, done
        for path, body in files.items():
            after = os.stat(os.path.join(data, path))
            assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before[path].st_ino, before[path].st_mtime_ns, len(body)), path
            copies = sum(os.path.exists(os.path.join(d, "photos", path)) for d in directories[1:])
            assert copies == 1, (path, copies)
            head = node.s3("HEAD", f"/photos/{path}")[1]
            assert all(head.get(k) == heads[path].get(k) for k in ("etag", "last-modified", "content-length")), (path, head, heads[path])
        again = rewrite(node, "photos")
        assert again["in_place"] == 0 and again["looked"] == len(files), again
        node.fsck()
        # The drive with the adopted files may now be lost.
        node.stop()
        os.rename(directories[0], directories[0] + ".away")
        node.start()
        for path, body in files.items():
            assert node.get("photos", path) == body, path


def test_rewrite_survives_kill_9_and_users_meanwhile():
    with Pool(["dir", "dir", "dir"]) as node:
        data = os.path.join(node.directories()[0], "tree")
        files = {f"d{i % 7}/f{i}": random_bytes(3000 + i, i) for i in range(1500)}
        write_tree(data, files)
        adopt(node, data, "bkt")
        current = dict(files)
        for round in range(4):
            job = subprocess.Popen([BINARY, "bucket", "rewrite", "bkt", "--root", node.root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.time() + 0.25 + 0.2 * round
            i = round * 100
            while time.time() < deadline:
                path = f"d{i % len(files) % 7}/f{i % len(files)}"
                node.put("bkt", path, b"new %d" % i)
                current[path] = b"new %d" % i
                other = (i + 750) % len(files)
                other = f"d{other % 7}/f{other}"
                assert node.get("bkt", other) == current[other], other
                i += 1
            node.kill()
            job.wait()
            node.start()
            for path in list(current)[round * 50::37]:
                assert node.get("bkt", path) == current[path], path
        done = rewrite(node, "bkt")
        assert done["waiting"] == 0 and done["left"] == 0 and done["failed"] == 0, done
        for path, body in current.items():
            assert node.get("bkt", path) == body, path
        node.fsck()
        node.stop()
        for victim in (1, 0):  # each object has two copies, as plain files
            found = tree(node.directories()[victim])
            assert found
        trees = [tree(d) for d in node.directories()]
        for path, body in current.items():
            copies = sum(t.get(f"bkt/{path}") == body for t in trees) + (trees[0].get(f"tree/{path}") == body)
            assert copies == 2, (path, copies)


def test_rewrite_changes_stripes_parts_and_versions():
    with Node("--drives", "4", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        node.cli("bucket", "set", "bkt", "--versioning", "enabled", "--redundancy", "ec:2+1")
        bodies = {}
        for i in range(12):
            for version in range(3):
                body = random_bytes(200_000 + i * 31_000, i * 10 + version)
                status, headers, _ = node.s3("PUT", f"/bkt/k{i}", body, {"x-amz-meta-n": str(version), "content-type": "text/x"})
                bodies[f"k{i}", headers["x-amz-version-id"]] = (body, headers["etag"])
        node.s3("DELETE", "/bkt/k3")
        big = os.path.join(node.root, "big")
        with open(big, "wb") as f:
            f.write(random_bytes(23_000_000, 9))
        node.cli("object", "put", big, "bkt/multi", "--part-size", "8MiB")
        head = node.s3("HEAD", "/bkt/multi")[1]
        assert head["etag"].endswith('-3"'), head
        assert rewrite(node, "bkt")["copied"] == 0
        for redundancy in ("mirror:2", "ec:2+2", "mirror:3"):
            node.cli("bucket", "set", "bkt", "--redundancy", redundancy)
            part = rewrite(node, "bkt", "--prefix", "k1")
            done = rewrite(node, "bkt")
            assert part["copied"] == 9 and done["copied"] == 28, (redundancy, part, done)
            for (key, version), (body, etag) in bodies.items():
                status, headers, got = node.s3("GET", f"/bkt/{key}", query=f"versionId={version}")
                assert status == 200 and got == body and headers["etag"] == etag and headers["content-type"] == "text/x", (key, status)
            after = node.s3("HEAD", "/bkt/multi")[1]
            assert all(after[k] == head[k] for k in ("etag", "last-modified", "content-length", "x-amz-version-id")), after
            assert hashlib.md5(node.get("bkt", "multi")).digest() == hashlib.md5(open(big, "rb").read()).digest()
            node.fsck()
        node.cli("bucket", "set", "bkt", "--redundancy", "mirror:4")
        done = rewrite(node, "bkt")  # more copies of what has three
        assert done["in_place"] + done["copied"] == 37 and done["in_place"] > 0 and done["waiting"] == 0, done
        node.fsck()
        refused = rewrite(node, "nobucket", check=False)
        assert refused.returncode != 0 and "nobucket" in refused.stderr, refused.stderr


def test_drives_on_one_file_system_are_counted_once_and_said_to_fail_together():
    with Pool(["dir", "kfs", "dir"]) as node:
        note = "drives 1, 2, 3 are on one file system"
        deadline = time.time() + 20  # it serves before it says so
        while note not in node.log_tail() and time.time() < deadline:
            time.sleep(0.1)
        assert note in node.log_tail(), node.log_tail()
        total = os.statvfs(node.home).f_blocks * os.statvfs(node.home).f_frsize
        assert abs(node.admin("GET", "/v1/status")["space"]["raw_bytes"] - total) < total / 100
        assert note in node.cli("device", "list").stdout
        more = os.path.join(node.home, "more")
        added = node.cli("device", "add", "dir:" + more)
        assert "warning: drives 1, 2, 3, 4 are on one file system" in added.stderr, added.stderr
        assert abs(node.admin("GET", "/v1/status")["space"]["raw_bytes"] - total) < total / 100
        node.stop()
        open(node.log.name, "w").close()
        node.start()
        assert "one file system" not in node.log_tail(), "it nags"


def inspect(*arguments):
    return subprocess.run([BINARY, "device", "inspect", *arguments], capture_output=True, text=True, timeout=60)


def test_inspect_says_what_is_known_of_a_file():
    with Pool(["dir", "dir"]) as node:
        node.create_bucket("bkt")
        body = random_bytes(300_000, 1)
        node.put("bkt", "a/b", body, **{"x-amz-meta-colour": "red"})
        path = os.path.join(node.directories()[0], "bkt/a/b")
        seen = json.loads(inspect(path, "--json").stdout)
        assert (seen["what"], seen["bucket"], seen["key"], seen["size"], seen["problem"]) == ("object", "bkt", "a/b", 300_000, ""), seen
        assert seen["verified"] and seen["checksums"] == 5 and seen["attributes"]["meta-colour"] == "red", seen
        text = inspect(path, "--no-verify").stdout
        assert "not verified" in text and seen["drive"] in text and seen["chunk"] in text, text
        with open(path, "r+b") as f:
            f.seek(200_000)
            f.write(b"edited")
        wrong = inspect(path)
        assert wrong.returncode != 0 and "1 of 5 blocks differ" in wrong.stdout, wrong.stdout
        with open(os.path.join(node.directories()[1], "note"), "w") as f:
            f.write("mine")
        assert "foreign" in inspect(os.path.join(node.directories()[1], "note")).stdout
        assert "drive" in inspect("dir:" + node.directories()[0]).stdout
