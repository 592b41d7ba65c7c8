"""S3 as processes see it: browser form uploads, accounts of usage, interrupted trees, progress on a terminal, answers to bad input."""
import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pty
import select
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.parse

from node import BINARY, Node, random_bytes, scratch


def post_form(node, bucket, key, body, conditions=(), fields=(), cut=None):
    """Uploads like a browser does. cut: bytes of the request's body that are sent before the client vanishes."""
    now = datetime.datetime.now(datetime.timezone.utc)
    date = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{date[:8]}/us-east-1/s3/aws4_request"
    credential = f"{node.endpoints['access_key']}/{scope}"
    signed = {"key": key, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": credential, "x-amz-date": date}
    policy = {"expiration": (now + datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "conditions": [{"bucket": bucket}, *[{k: v} for k, v in signed.items()], *conditions]}
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    secret = ("AWS4" + node.endpoints["secret_key"]).encode()
    for part in scope.split("/"):
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    form = {**signed, "policy": text, "x-amz-signature": hmac.new(secret, text.encode(), hashlib.sha256).hexdigest(), **dict(fields)}
    data = b"".join(f'--xyz\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in form.items())
    data += b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + body + b"\r\n--xyz--\r\n"
    url = urllib.parse.urlparse(node.endpoints["s3"])
    if cut is not None:
        with socket.create_connection((url.hostname, url.port)) as s:
            s.sendall(f"POST /{bucket} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {len(data)}\r\n\r\n".encode())
            s.sendall(data[:cut])
        return None
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
    connection.request("POST", f"/{bucket}", body=data, headers={"Content-Type": "multipart/form-data; boundary=xyz"})
    answer = connection.getresponse()
    result = answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()
    connection.close()
    return result


def test_forms_upload_files_and_vanishing_browsers_leave_nothing():
    with Node("--drives", "4", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        for size in (0, 10, 5000, 1_048_576, 20_000_000):
            body = random_bytes(size, size)
            status, headers, text = post_form(node, "bkt", f"k{size}", body)
            assert status == 204, (size, status, text)
            assert headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"', headers
            assert node.get("bkt", f"k{size}") == body, size
        status, _, text = post_form(node, "bkt", "large", b"x" * 2000, conditions=[["content-length-range", 0, 1000]])
        assert status == 400 and b"EntityTooLarge" in text, text
        post_form(node, "bkt", "vanished", random_bytes(20_000_000, 1), cut=10_000_000)
        deadline = time.time() + 120
        while (left := node.fsck()["orphan_chunks"]) != 0:
            assert time.time() < deadline, f"{left} chunks are left"
            time.sleep(0.2)
        for key in ("large", "vanished"):
            assert node.s3("GET", f"/bkt/{key}")[0] == 404


def test_usage_is_counted_by_job():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.create_bucket("bkt")
        node.put("bkt", "k", b"x" * 1000, **{"x-quarry-attribution": "team=t; job=train; rank=4"})
        assert node.s3("GET", "/bkt/k", headers={"user-agent": "Boto3/1 app/eval x/y"})[0] == 200
        for i in range(300):
            assert node.s3("HEAD", "/bkt/k", headers={"x-quarry-attribution": f"job=many-{i}"})[0] == 200
        jobs = json.loads(node.cli("status", "--jobs", "--json").stdout)["jobs"]
        total = sum(j["requests"] for j in jobs)
        assert total >= 303, total
        assert any(j["job"] == "other" and j["user"] == "other" for j in jobs) or len(jobs) >= 300, "rows are bounded by event loop"
        assert "JOB" in node.cli("status", "--jobs").stdout
        url = urllib.parse.urlparse(node.endpoints["admin"])
        connection = http.client.HTTPConnection(url.hostname, url.port)
        connection.request("GET", "/metrics")
        assert b'job_requests_total{user="admin"' in connection.getresponse().read()
        connection.close()


def test_a_tree_that_was_interrupted_is_completed():
    work = scratch()
    try:
        with Node("--drives", "4", "--drive-size", "2GiB") as node:
            tree = os.path.join(work, "tree")
            for i in range(400):
                path = os.path.join(tree, f"d{i % 5}", f"f{i}")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as f:
                    f.write(random_bytes(200_000, i))
            with open(os.path.join(tree, "large"), "wb") as f:
                f.write(random_bytes(120_000_000, 1))
            os.symlink("large", os.path.join(tree, "link"))
            node.cli("bucket", "create", "bkt")
            running = subprocess.Popen([BINARY, "object", "put", "-r", tree, "bkt/t", "-j", "2", "--part-size", "5MiB", "--root", node.root],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.time() + 120
            while time.time() < deadline and running.poll() is None:
                status, _, listed = node.s3("GET", "/bkt", query="list-type=2&prefix=t%2F")
                assert status == 200, listed[:300]
                if listed.count(b"<Key>") >= 50:
                    break
            assert running.poll() is None, "the upload was over before it could be interrupted"
            running.send_signal(signal.SIGINT)
            running.wait(timeout=120)
            again = node.cli("object", "put", "-r", tree, "bkt/t", "--skip-same", "--part-size", "5MiB", "--json")
            told = json.loads(again.stdout)
            assert told["files"] == 401 and told["skipped"] >= 50 and not told["failures"], told
            assert "1 symbolic links" in again.stderr, again.stderr
            os.unlink(os.path.join(tree, "link"))
            node.cli("object", "get", "-r", "bkt/t/", os.path.join(work, "back"))
            assert subprocess.run(["diff", "-r", tree, os.path.join(work, "back")]).returncode == 0
            assert b"<UploadId>" not in node.s3("GET", "/bkt", query="uploads=")[2], "an interrupted upload was left behind"
    finally:
        shutil.rmtree(work)


def test_progress_is_shown_on_a_terminal_and_nowhere_else():
    work = scratch()
    try:
        with Node("--drives", "4", "--drive-size", "3GiB") as node:
            path = os.path.join(work, "big")
            with open(path, "wb") as f:
                f.truncate(500_000_000)
            node.cli("bucket", "create", "bkt")
            assert node.cli("object", "put", path, "bkt/quiet").stderr == ""
            leader, follower = pty.openpty()
            running = subprocess.Popen([BINARY, "object", "put", path, "bkt/big", "-j", "1", "--part-size", "5MiB", "--root", node.root], stdout=subprocess.DEVNULL, stderr=follower)
            os.close(follower)
            shown = b""
            while running.poll() is None or select.select([leader], [], [], 0)[0]:
                if select.select([leader], [], [], 0.1)[0]:
                    try:
                        shown += os.read(leader, 65536)
                    except OSError:
                        break
            os.close(leader)
            assert running.wait() == 0
            lines = shown.split(b"\r\x1b[K")
            assert sum(b"%" in line and b"[#" in line and b"/s" in line for line in lines) >= 2, shown[:300]
            assert shown.endswith(b"\r\x1b[K"), "the line is not cleared at the end"
    finally:
        shutil.rmtree(work)


def test_every_command_answers_in_json():
    with Node("--drives", "2", "--drive-size", "512MiB") as node:
        def says(*command):
            text = node.cli(*command, "--json", input="from a pipe").stdout
            return json.loads(text)

        path = os.path.join(node.root, "file")
        open(path, "w").write("hello")
        says("bucket", "create", "bkt"), says("bucket", "set", "bkt", "--quota", "1GiB"), says("bucket", "info", "bkt"), says("bucket", "list")
        assert says("object", "put", path, "bkt/k")["files"] == 1
        assert says("object", "put", "-", "bkt/piped")["bytes"] == 11
        assert says("object", "cp", "bkt/k", "bkt/l") == {"copied": 1}
        assert says("object", "pin", "bkt/k") == {"pinned": 1}
        assert says("object", "unpin", "bkt/k") == {"unpinned": 1}
        assert len(says("object", "ls", "bkt")) == 3
        assert says("object", "stat", "bkt/k")["size"] == 5
        assert says("object", "get", "bkt/k", path)["files"] == 1
        assert says("object", "rm", "bkt/k") == {"deleted": 1}
        assert says("object", "rm", "-r", "bkt/") == {"deleted": 2}
        says("user", "create", "ann"), says("user", "list"), says("user", "disable", "ann"), says("user", "enable", "ann")
        key = says("key", "create", "ann")["access_key"]
        says("key", "list", "ann"), says("key", "disable", key), says("key", "enable", key), says("key", "delete", key), says("user", "delete", "ann")
        says("status"), says("status", "--jobs"), says("fsck"), says("scrub")
        assert says("bucket", "delete", "bkt") == {"deleted": "bkt"}
        assert json.loads(subprocess.run([BINARY, "version", "--json"], capture_output=True, text=True).stdout)["version"]


def test_mistakes_name_what_is_wrong():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.cli("bucket", "create", "bkt")

        def complains(*command):
            done = node.cli(*command, check=False)
            assert done.returncode in (1, 2), (command, done)
            return done.stderr

        assert "there is no such object" in complains("object", "stat", "bkt/none")
        assert "0 not in range" in complains("object", "put", "-j", "0", "x", "bkt/x")
        assert "did you mean" in complains("object", "put", "--job", "3", "x", "bkt/x")
        assert "No such file" in complains("object", "put", "/none/such", "bkt/x")
        assert "add -r" in complains("object", "put", node.root, "bkt/x")
        assert "NoSuchBucket" in complains("object", "ls", "nobucket")
        assert "there is no object none in bucket bkt" in complains("object", "rm", "bkt/none")
        assert "already" in complains("bucket", "create", "bkt")
        assert "3 to 63 characters" in complains("bucket", "create", "Bad_Name")
        help_text = subprocess.run([BINARY, "up", "--help"], capture_output=True, text=True).stdout
        for profile in ("kamikaze", "economy", "standard", "resilient", "fortress"):
            assert any(line.strip().startswith(profile + " ") for line in help_text.splitlines()), help_text
        stopped = dict(node.endpoints)
        node.stop()
        json.dump(stopped, open(os.path.join(node.root, "endpoints.json"), "w"))
        assert f"to start it: `quarry up --root {node.root}`" in complains("bucket", "list")


def test_buckets_with_keys_that_xml_cannot_carry_are_cleaned():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.create_bucket("bkt")
        keys = ["a\x01b", "\x02", "plain", "\uffff", "tab\there"]
        for key in keys:
            node.put("bkt", key, b"x")
        node.create_bucket("bkt")  # one's own bucket again: nothing changes
        shown = json.loads(node.cli("object", "ls", "-r", "bkt", "--json").stdout)
        assert sorted(o["key"] for o in shown) == sorted(keys), shown
        node.cli("object", "rm", "-r", "bkt/a")
        assert len(json.loads(node.cli("object", "ls", "-r", "bkt", "--json").stdout)) == len(keys) - 1
        node.cli("bucket", "delete", "bkt", "--force")


def test_completion_works_in_the_shells():
    for shell, script in (
        ("bash", 'source <("$QUARRY" completion bash); COMP_WORDS=(quarry obj); COMP_CWORD=1; _quarry; echo "${COMPREPLY[@]}"; '
                 'COMP_WORDS=(quarry object put --rec); COMP_CWORD=3; _quarry; echo "${COMPREPLY[@]}"'),
        ("zsh", 'autoload -U compinit && compinit -u -D; source <("$QUARRY" completion zsh); whence -w _quarry; print -r -- ${_comps[quarry]}'),
        ("fish", '"$QUARRY" completion fish | source; complete -C "quarry obj"; complete -C "quarry object put --rec"'),
    ):
        if shutil.which(shell) is None:
            continue
        done = subprocess.run([shell, "-c", script], capture_output=True, text=True, env=dict(os.environ, QUARRY=BINARY, HOME="/var/tmp"), timeout=120)
        assert not done.stderr.strip(), (shell, done.stderr)
        if shell == "zsh":
            assert "_quarry: function" in done.stdout and "_quarry" in done.stdout.splitlines()[-1], done.stdout
        else:
            words = done.stdout.split()
            assert "object" in words and "--recursive" in words, (shell, done.stdout)


def test_stopping_does_not_wait_for_silent_tls_clients():
    with Node("--drives", "2", "--drive-size", "256MiB", "--tls") as node:
        url = urllib.parse.urlparse(node.endpoints["s3"])
        silent = [socket.create_connection((url.hostname, url.port)) for _ in range(3)]
        context = ssl.create_default_context(cafile=os.path.join(node.root, "tls/certificate.pem"))
        with socket.create_connection((url.hostname, url.port)) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.version() == "TLSv1.3"
        time.sleep(0.2)
        begun = time.time()
        assert node.stop() == 0
        assert time.time() - begun < 5, time.time() - begun
        for s in silent:
            s.close()


def test_a_bad_request_line_is_answered():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        url = urllib.parse.urlparse(node.endpoints["s3"])
        for line in (b"nonsense", b"GET /", b"\x16\x03\x01 nonsense"):
            with socket.create_connection((url.hostname, url.port)) as s:
                s.settimeout(60)
                s.sendall(line + b"\r\n\r\n")
                assert s.recv(4096).startswith(b"HTTP/1.1 400 "), line
