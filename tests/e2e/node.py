"""A node under test: starts and stops `quarry up`, and speaks S3 and admin with nothing but the standard library."""
import ctypes
import datetime
import errno
import hashlib
import hmac
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

BINARY = os.environ.get("QUARRY", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/release/quarry"))


handed_out, handing_out = set(), threading.Lock()


def free_port():
    """A port for a server that starts later. Not one of those that the kernel gives to whoever asks for any: a client of another case, run side by
    side, might have it by then. None is given twice."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low, high = map(int, f.read().split())
    places = [*range(10_000, low), *range(high + 1, 65_536)] or range(low, high + 1)
    with handing_out:
        while True:
            port = random.choice(places)
            if port in handed_out:
                continue
            handed_out.add(port)
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: the remains of connections do not matter
                try:
                    s.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass


def scratch():
    return tempfile.mkdtemp(prefix="quarry-e2e-", dir=os.environ.get("TMPDIR") or "/var/tmp")


class Skip(Exception):
    """Raised by a case that this machine cannot run; the text says why."""


def why_no_node():
    """Why no node can run here, or None. A container's profile may forbid io_uring (EPERM, ENOSYS); allowed, it answers EFAULT to this call."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(425, 1, None)  # io_uring_setup
    if ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        return "io_uring is forbidden here (the container's seccomp profile, or sysctl kernel.io_uring_disabled), and a node needs it"
    return None


class Node:
    patience_s = 120  # until it must be ready
    prefix = ()  # what the node runs under: setpriv and the like

    def __init__(self, *args, root=None, env=None):
        self.root = root or scratch()
        self.args = list(args)
        self.env = dict(os.environ, **(env or {}))
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)  # nobody else does: its folders and processes go
            raise

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self, *more, wait=True):
        if NO_NODE:
            raise Skip(NO_NODE)
        endpoints = os.path.join(self.root, "endpoints.json")
        if os.path.exists(endpoints):
            os.unlink(endpoints)
        self.ports = (free_port(), free_port())
        self.log = open(os.path.join(self.root, "node.log"), "ab")
        command = [*self.prefix, BINARY, "up", "--root", self.root, "--s3", f"127.0.0.1:{self.ports[0]}", "--admin", f"127.0.0.1:{self.ports[1]}", *self.args, *more]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=self.env)
        if not wait:
            return self
        deadline = time.time() + self.patience_s
        while not os.path.exists(endpoints):
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.returncode}: {self.log_tail()}")
            if time.time() > deadline:
                raise AssertionError(f"the node is not ready after {self.patience_s} s: " + self.log_tail())
            time.sleep(0.02)
        self.endpoints = json.load(open(endpoints))
        return self

    def log_text(self):
        return open(self.log.name, errors="replace").read()

    def log_tail(self):
        return self.log_text()[-1500:]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=120)
        self.process = None
        return status

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def cli(self, *command, check=True, input=None):
        done = subprocess.run([BINARY, *command, "--root", self.root], capture_output=True, text=True, input=input, timeout=900)
        fine = (0, 1, 2) if command[0] == "status" else (0,)  # it exits as bad as things are
        if check and done.returncode not in fine:
            raise AssertionError(f"{command}: status {done.returncode}: {done.stderr} {done.stdout[-600:]}")
        return done

    def tool(self, *command):
        """A command that needs no node."""
        return subprocess.run([BINARY, *command], capture_output=True, text=True, timeout=300)

    def s3(self, method, path, body=b"", headers=None, query="", where="s3"):
        """One signed request; returns (status, headers, body). Raises OSError when the node is away."""
        url = urllib.parse.urlparse(self.endpoints[where])
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        sha = hashlib.sha256(body).hexdigest()
        signed = {"host": url.netloc, "x-amz-content-sha256": sha, "x-amz-date": now, **{k.lower(): v for k, v in (headers or {}).items()}}
        names = ";".join(sorted(signed))
        quoted = urllib.parse.quote(path, safe="/-._~")
        canonical_query = "&".join(sorted(q if "=" in q else q + "=" for q in query.split("&"))) if query else ""
        canonical = "\n".join([method, quoted, canonical_query, *[f"{k}:{signed[k]}" for k in sorted(signed)], "", names, sha])
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + self.endpoints["secret_key"]).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        signed["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.endpoints['access_key']}/{scope}, SignedHeaders={names}, Signature={signature}"
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
        try:
            connection.request(method, quoted + ("?" + query if query else ""), body=body, headers=signed)
            answer = connection.getresponse()
            return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()
        finally:
            connection.close()

    def put(self, bucket, key, body, **headers):
        status, _, text = self.s3("PUT", f"/{bucket}/{key}", body, headers)
        assert status == 200, f"PUT {bucket}/{key}: {status} {text[:300]}"

    def get(self, bucket, key):
        status, _, body = self.s3("GET", f"/{bucket}/{key}")
        assert status == 200, f"GET {bucket}/{key}: {status} {body[:300]}"
        return body

    def create_bucket(self, bucket):
        status, _, text = self.s3("PUT", f"/{bucket}")
        assert status == 200, f"create {bucket}: {status} {text[:300]}"

    def admin(self, method, path, body=None):
        status, _, text = self.s3(method, path, json.dumps(body).encode() if body is not None else b"", where="admin")
        assert status < 300, f"{method} {path}: {status} {text[:300]}"
        return json.loads(text)

    def fsck(self):
        report = self.admin("POST", "/v1/fsck")
        assert report["sound"], f"fsck: {report['violations'][:5]}"
        return report


def random_bytes(size, seed):
    numbers = random.Random(seed)
    return b"".join(numbers.randbytes(min(size - at, 64 << 20)) for at in range(0, size, 64 << 20))  # randbytes makes at most 256 MiB at once


NO_NODE = why_no_node()
if __name__ == "__main__" and NO_NODE:
    print(NO_NODE)
