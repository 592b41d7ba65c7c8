"""The command line as a person uses it: transfers, resumption, listing, users and keys, buckets, JSON, mistakes, completion."""
import json
import os
import shutil
import subprocess
import time

from node import BINARY, NO_NODE, Node, Skip, free_port, random_bytes, scratch


def test_trees_and_large_files_go_in_and_come_back_the_same():
    work = scratch()
    try:
        with Node("--drives", "4", "--drive-size", "1GiB") as node:
            tree = os.path.join(work, "tree")
            for i in range(300):
                path = os.path.join(tree, f"d{i % 7}", f"file {i} with spaces & signs +%.txt")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as f:
                    f.write(random_bytes(i * 37, i))
            with open(os.path.join(tree, "large"), "wb") as f:
                f.write(random_bytes(70_000_000, 1))
            node.cli("bucket", "create", "bkt")
            put = json.loads(node.cli("object", "put", "-r", tree, "bkt/tree", "--json").stdout)
            assert put["files"] == 301 and not put["failures"], put
            back = os.path.join(work, "back")
            got = json.loads(node.cli("object", "get", "-r", "bkt/tree/", back, "--json").stdout)
            assert got["files"] == 301, got
            assert subprocess.run(["diff", "-r", tree, back]).returncode == 0
            again = json.loads(node.cli("object", "put", "-r", tree, "bkt/tree", "--skip-same", "--json").stdout)
            assert again["skipped"] >= 300, again
            listed = json.loads(node.cli("object", "ls", "-r", "bkt/tree/", "--json").stdout)
            assert len(listed) == 301
            assert len(json.loads(node.cli("object", "ls", "bkt/tree/", "--json").stdout)) == 8  # 7 prefixes and the large file
            node.cli("object", "cp", "bkt/tree/large", "bkt/copy")
            assert json.loads(node.cli("object", "stat", "bkt/copy", "--json").stdout)["size"] == 70_000_000
            node.cli("object", "rm", "-r", "bkt/tree/")
            assert json.loads(node.cli("object", "ls", "-r", "bkt/tree/", "--json").stdout) == []
            done = subprocess.run([BINARY, "object", "put", "-", "bkt/piped", "--root", node.root], input=b"from a pipe", capture_output=True)
            assert done.returncode == 0, done
            assert node.cli("object", "cat", "bkt/piped").stdout == "from a pipe"
            # Versions hinder a bucket's end as objects do, and --force removes both.
            node.admin("POST", "/v1/buckets/bkt", {"versioning": "enabled"})
            for body in (b"one", b"two"):
                node.put("bkt", "versioned \u00fc", body)
            assert node.s3("DELETE", "/bkt/versioned \u00fc")[0] == 204
            refused = node.cli("bucket", "delete", "bkt", check=False)
            assert refused.returncode == 1 and "not_empty" in refused.stderr, refused
            node.cli("bucket", "delete", "bkt", "--force")
            assert json.loads(node.cli("device", "disable", "1", "--json").stdout) == {"accepted": "disable", "drive": 1}
            assert json.loads(node.cli("device", "enable", "1", "--json").stdout) == {"accepted": "enable", "drive": 1}
    finally:
        shutil.rmtree(work)


def test_a_slow_reader_of_many_parts_does_not_hold_the_space_of_others():
    work = scratch()
    try:
        with Node("--drives", "4", "--drive-size", "1GiB") as node:
            path = os.path.join(work, "parts")
            content = random_bytes(360_000_000, 1)
            with open(path, "wb") as f:
                f.write(content)
            node.cli("bucket", "create", "bkt")
            node.cli("object", "put", path, "bkt/parts", "--part-size", "5MiB")
            reader = subprocess.Popen([BINARY, "object", "cat", "bkt/parts", "--root", node.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                got = [reader.stdout.read(1_000_000)]
                assert node.s3("DELETE", "/bkt/parts")[0] == 204
                # What is written and deleted meanwhile is more than the store can hold.
                body = random_bytes(100_000_000, 2)
                for i in range(30):
                    for _ in range(50):
                        status, _, text = node.s3("PUT", f"/bkt/{i}", body)
                        if status != 503:  # a moment: what was deleted is still being removed
                            break
                        time.sleep(0.1)
                    assert status == 200, (i, status, text[:300])
                    assert node.s3("DELETE", f"/bkt/{i}")[0] == 204
                    time.sleep(0.3)
                    got.append(reader.stdout.read(1_000_000))  # slow, but one that takes nothing for half a minute is sent away
                while piece := reader.stdout.read(1 << 20):
                    got.append(piece)
                assert reader.wait() == 0, reader.stderr.read()
                assert b"".join(got) == content
            finally:
                reader.kill()
                reader.wait()
            node.fsck()
    finally:
        shutil.rmtree(work)


def test_a_bucket_of_many_objects_is_deleted_quickly():
    with Node("--drives", "4", "--drive-size", "1GiB") as node:
        count = 12_000
        work = os.path.join(node.root, "many")
        os.mkdir(work)
        for i in range(count):
            with open(os.path.join(work, f"{i:06}"), "wb") as f:
                f.write(b"x")
        node.cli("bucket", "create", "bkt")
        node.admin("POST", "/v1/buckets/bkt", {"versioning": "enabled"})
        node.cli("object", "put", "-r", work, "bkt", "-j", "64")
        for i in range(100):  # versions and markers at the borders of pages
            node.put("bkt", f"{990 + i % 20:06}", b"again")
            assert node.s3("DELETE", f"/bkt/{1000 + i % 3:06}")[0] == 204
        started = time.time()
        node.cli("bucket", "delete", "bkt", "--force")
        rate = count / (time.time() - started)
        assert rate > 3_000, f"{rate:.0f} objects a second"  # far more on a quiet machine: bench/RESULTS.md
        assert json.loads(node.cli("bucket", "list", "--json").stdout) == []
        node.fsck()


def test_an_interrupted_upload_continues_where_it_was():
    work = scratch()
    try:
        with Node("--drives", "4", "--drive-size", "2GiB") as node:
            path = os.path.join(work, "big")
            with open(path, "wb") as f:
                f.write(random_bytes(200_000_000, 3))
            node.cli("bucket", "create", "bkt")
            running = subprocess.Popen([BINARY, "object", "put", path, "bkt/big", "-j", "2", "--part-size", "5MiB", "--root", node.root], stdout=subprocess.DEVNULL)
            parts = 0
            while parts < 4 and running.poll() is None:
                _, _, uploads = node.s3("GET", "/bkt", query="uploads=")
                if b"<UploadId>" in uploads:
                    upload = uploads.split(b"<UploadId>")[1].split(b"<")[0].decode()
                    _, _, listed = node.s3("GET", "/bkt/big", query="uploadId=" + upload)
                    parts = listed.count(b"<PartNumber>")
            assert running.poll() is None, "the upload was over before it could be interrupted"
            running.kill()
            running.wait()
            node.cli("object", "put", path, "bkt/big", "--part-size", "5MiB")
            _, _, uploads = node.s3("GET", "/bkt", query="uploads=")
            assert b"<UploadId>" not in uploads, "the interrupted upload was left behind instead of continued"
            node.cli("object", "get", "bkt/big", os.path.join(work, "back"))
            assert subprocess.run(["cmp", path, os.path.join(work, "back")]).returncode == 0
    finally:
        shutil.rmtree(work)


def test_users_and_keys_come_and_go():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.cli("user", "create", "ann")
        key = json.loads(node.cli("key", "create", "ann", "--json").stdout)
        node.create_bucket("private")
        admin = dict(node.endpoints)
        node.endpoints.update(access_key=key["access_key"], secret_key=key["secret_key"])
        assert node.s3("PUT", "/anns")[0] == 200
        assert node.s3("PUT", "/anns/x", b"1")[0] == 200
        assert node.s3("GET", "/private")[0] == 403
        assert node.s3("GET", "/v1/status", where="admin")[0] == 403
        node.endpoints.update(admin)
        node.cli("key", "disable", key["access_key"])
        node.endpoints.update(access_key=key["access_key"], secret_key=key["secret_key"])
        assert node.s3("GET", "/anns/x")[0] == 403
        node.endpoints.update(admin)
        listed = json.loads(node.cli("user", "list", "--json").stdout)
        assert {u["name"] for u in listed} == {"admin", "ann"}
        for line in open(node.log.name, errors="replace"):
            assert key["secret_key"] not in line and (admin["secret_key"] not in line or "secret key" in line), "a secret is in the log"


def test_quotas_hold():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.cli("bucket", "create", "bkt", "--quota", "1MiB", "--quota-objects", "5")
        for i in range(4):
            node.put("bkt", f"k{i}", b"x" * 200_000)
        assert node.s3("PUT", "/bkt/large", b"x" * 400_000)[0] in (403, 507)
        node.put("bkt", "k4", b"x")
        assert node.s3("PUT", "/bkt/k5", b"x")[0] in (403, 507)
        node.put("bkt", "k0", b"y")  # overwriting is no new object
        info = json.loads(node.cli("bucket", "info", "bkt", "--json").stdout)
        assert info["objects"] == 5 and info["bytes"] == 600_002, info


def test_mistakes_are_answered_with_what_to_type():
    def says(*command):
        done = subprocess.run([BINARY, *command], capture_output=True, text=True)
        assert done.returncode == 2, done
        return done.stderr

    assert "quarry object" in says("objetc", "ls")
    assert "did you mean:  quarry object put" in says("object", "putt", "x")
    assert "--recursive" in says("object", "put", "--recursiv", "a", "bkt")
    missing = subprocess.run([BINARY, "status", "--root", "/nonexistent"], capture_output=True, text=True)
    assert missing.returncode == 3 and "quarry up --root /nonexistent" in missing.stderr


def test_a_node_of_another_region_is_spoken_to_in_its_region():
    node = Node()
    config, ports = os.path.join(node.root, "quarry.toml"), (free_port(), free_port())
    with open(config, "w") as f:
        f.write(f'root = "{node.root}"\ns3 = "127.0.0.1:{ports[0]}"\nadmin = "127.0.0.1:{ports[1]}"\n'
                'region = "eu-west-1"\ndrives = 1\ndrive_size = "1GiB"\n')
    if NO_NODE:
        raise Skip(NO_NODE)
    node.process = subprocess.Popen([BINARY, "server", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.time() + node.patience_s
        while not os.path.exists(os.path.join(node.root, "endpoints.json")):
            assert time.time() < deadline and node.process.poll() is None, "the node is not ready"
            time.sleep(0.05)
        for region in ([], ["--region", "eu-west-1"]):
            node.cli("status", *region)
            node.cli("bucket", "list", *region)
        for command in (("status",), ("bucket", "list")):
            wrong = node.cli(*command, "--region", "us-east-1", check=False)
            assert wrong.returncode != 0 and "eu-west-1" in wrong.stderr, wrong
    finally:
        node.__exit__()


def test_completion_scripts_are_valid():
    for shell in ("bash", "zsh", "fish"):
        script = subprocess.run([BINARY, "completion", shell], check=True, capture_output=True, text=True).stdout
        assert "object" in script
        if shell == "bash":
            assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
            words = subprocess.run(["bash", "-c", script + '\nCOMP_WORDS=(quarry object p); COMP_CWORD=2; _quarry; echo "${COMPREPLY[@]}"'], capture_output=True, text=True).stdout.split()
            assert words == ["put", "pin"], words
