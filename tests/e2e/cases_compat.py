"""Stores that earlier programs left behind (tests/compat/stores, made by tests/compat/make) open, are whole, and can be written."""
import glob
import hashlib
import json
import os
import shutil
import subprocess

from node import BINARY, Node, random_bytes, scratch

STORES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../compat/stores")


def open_store(path):
    expected = json.load(open(path[:-len(".tar.xz")] + ".json"))
    drives = scratch()
    try:
        subprocess.run(["tar", "-xJf", path, "-C", drives], check=True)
        with Node(*[a for f in sorted(glob.glob(drives + "/*")) for a in ("--device", f)]) as node:
            assert node.endpoints["access_key"] == expected["access_key"] and node.endpoints["secret_key"] == expected["secret_key"]
            for bucket, objects in expected["buckets"].items():
                for key, what in objects.items():
                    status, headers, body = node.s3("GET", f"/{bucket}/{key}")
                    assert status == 200 and hashlib.sha256(body).hexdigest() == what["sha256"], f"{bucket}/{key}: {status}"
                    for name, value in what["headers"].items():
                        if name == "content-type" or name.startswith("x-amz-meta-"):
                            assert headers.get(name) == value, f"{bucket}/{key}: {name} is {headers.get(name)}, was {value}"
            for bucket, key in expected["deleted"]:
                assert node.s3("GET", f"/{bucket}/{key}")[0] == 404
            status, _, text = node.s3("GET", "/versioned", query="versions=")
            assert status == 200 and text.count(b"<Version>") == 4 and text.count(b"<DeleteMarker>") == 1, text
            status, _, text = node.s3("GET", "/plain", query="uploads=")
            assert text.count(b"<Upload>") == 1, text
            status, _, text = node.s3("GET", "/plain/tagged", query="tagging=")
            assert text.count(b"<Tag>") == 2, text
            node.fsck()
            body = random_bytes(2_000_000, 1)
            node.put("plain", "written by a later program", body)
            assert node.stop() == 0
            node.start()
            assert node.get("plain", "written by a later program") == body
            node.fsck()
    finally:
        shutil.rmtree(drives)


def test_stores_of_earlier_programs_open():
    stores = sorted(glob.glob(os.path.join(STORES, "*.tar.xz")))
    assert stores, "no stored store"
    for store in stores:
        try:
            open_store(store)
        except AssertionError as error:
            raise AssertionError(f"{os.path.basename(store)}: {error}") from error


def open_kfs_store(path):
    expected = json.load(open(path[:-len(".tar.xz")] + ".json"))
    work = scratch()
    try:
        subprocess.run(["tar", "-xJf", path, "-C", work], check=True)
        store = os.path.join(work, "s")

        def kfs(*args, check=True):
            return subprocess.run([BINARY, "kfs", *args, "--store", store], check=check, capture_output=True, timeout=120)
        for _ in range(2):
            for name, size in expected["files"].items():
                body = kfs("read", name).stdout
                assert len(body) == size and hashlib.sha256(body).hexdigest() == name, name
            for name in expected["unlinked"]:
                assert kfs("read", name, check=False).returncode == 1
            kfs("verify")
        largest = max(expected["files"], key=expected["files"].get)
        kfs("unlink", largest)
        assert kfs("read", largest, check=False).returncode == 1
        fresh = os.path.join(work, "fresh")
        with open(fresh, "wb") as f:
            f.write(random_bytes(9_000_000, 3))
        name = kfs("write", fresh).stdout.split()[0].decode()
        assert hashlib.sha256(kfs("read", name).stdout).hexdigest() == name
        kfs("verify")
    finally:
        shutil.rmtree(work)


def test_kfs_stores_of_earlier_programs_open():
    stores = sorted(glob.glob(os.path.join(STORES, "../kfs/*.tar.xz")))
    assert stores, "no stored store"
    for store in stores:
        open_kfs_store(store)
