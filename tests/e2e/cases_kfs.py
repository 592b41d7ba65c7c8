"""`quarry kfs`: the S-bucket store on its own, without a node."""
import hashlib
import json
import os
import shutil
import subprocess

from node import BINARY, random_bytes, scratch


def kfs(*args, check=True, input=None):
    done = subprocess.run([BINARY, "kfs", *args], capture_output=True, input=input, timeout=120)
    if check:
        assert done.returncode == 0, (args, done.stderr)
    return done


def test_kfs_keeps_files_by_their_hash():
    work = scratch()
    try:
        store = os.path.join(work, "store")
        body = random_bytes(3_000_001, 5)
        path = os.path.join(work, "file")
        with open(path, "wb") as f:
            f.write(body)
        name = kfs("write", path, "--store", store).stdout.split()[0].decode()
        assert name == hashlib.sha256(body).hexdigest()
        assert kfs("read", name, "--store", store).stdout == body
        assert kfs("read", name, "--store", store, "--offset", "65530", "--length", "100").stdout == body[65530:65630]
        piped = kfs("write", "-", "--store", store, input=b"from a pipe").stdout.split()[0].decode()
        assert piped == hashlib.sha256(b"from a pipe").hexdigest()
        listed = json.loads(kfs("list", "--store", store, "--json").stdout)
        assert name in json.dumps(listed) and piped in json.dumps(listed), listed
        unknown = kfs("read", "0" * 64, "--store", store, check=False)
        assert unknown.returncode == 1 and unknown.stdout == b"" and b"not_found" in unknown.stderr, unknown
        kfs("unlink", name, "--store", store)
        assert kfs("read", name, "--store", store, check=False).returncode == 1
        kfs("compact", "--store", store)
        kfs("verify", "--store", store)
        assert kfs("read", piped, "--store", store).stdout == b"from a pipe"
    finally:
        shutil.rmtree(work)
