"""Starts and stops the server under test: a Quarry node, or a peer (MinIO, versitygw) to check the harness itself."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from lib import environment
from lib.s3 import S3, S3Error


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """An S3 endpoint that somebody else runs: `run --endpoint`."""
    name = "endpoint"
    owned = False  # we started it, so we may kill and restart it
    certificate = None

    def __init__(self, endpoint=None, access_key=None, secret_key=None, region="us-east-1"):
        self.endpoint, self.access_key, self.secret_key, self.region = endpoint, access_key, secret_key, region

    def start(self):
        pass

    def stop(self):
        pass

    def client(self):
        return S3(self.endpoint, self.access_key, self.secret_key, self.region)

    def add_user(self, access_key, secret_key, role="user"):
        raise NotImplementedError("this server gives us no way to add a user")


class OwnedServer(Server):
    owned = True
    access_key, secret_key = "conformance", "conformance-secret"

    def __init__(self, tls=False, root=None):
        super().__init__(None, self.access_key, self.secret_key)
        self.tls = tls
        self.root = environment.scratch(f"conformance-{self.name}-", root)
        self.port, self.admin_port = free_port(), free_port()
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.process = None
        self.log_path = self.root.with_suffix(".log")

    def command(self):
        raise NotImplementedError

    def variables(self):
        return {}

    def start(self):
        """Returns once the server answers a signed request."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True, env={**environment.clean(), **self.variables()})
        deadline, problem = time.monotonic() + 60, None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")
            try:
                self.learn_keys()
                self.client().buckets()
                return
            except (OSError, S3Error, ValueError, KeyError) as e:
                problem = e
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"{self.name} does not answer after 60 s ({problem}):\n{self.log_tail()}")

    def learn_keys(self):
        pass

    def log_tail(self):
        return "".join(open(self.log_path, errors="replace").readlines()[-15:])

    def kill(self):
        """kill -9, as a crash; `start` brings it back on the same root and port."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self):
        """Graceful stop; raises when the server did not end in time or ended badly. Removes its data."""
        problem = None
        if self.process:
            if self.process.poll() is not None:
                problem = f"{self.name} had died with status {self.process.returncode}:\n{self.log_tail()}"
            else:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(30)
                except subprocess.TimeoutExpired:
                    problem = f"{self.name} did not end within 30 s of SIGTERM"
                    self.kill()
        shutil.rmtree(self.root, ignore_errors=True)
        if problem:
            raise RuntimeError(problem)
        self.log_path.unlink(missing_ok=True)

    def check(self):
        """Proves the invariants of the store, where the server can."""

    def make_certificate(self, folder, certificate, key):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / key, "-out", folder / certificate],
                       check=True, capture_output=True)
        self.certificate = folder / certificate


class Quarry(OwnedServer):
    name = "quarry"

    def __init__(self, binary=None, devices=None, profile=None, **options):
        self.devices = devices
        self.profile = profile
        self.binary = pathlib.Path(binary or environment.repository() / "build/release/quarry").absolute()
        if not self.binary.exists():
            raise RuntimeError(f"no Quarry binary at {self.binary}: build it (./dev build), or name one with --quarry")
        super().__init__(**options)

    def command(self):
        return [self.binary, "up", "--root", self.root, "--s3", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}",
                *self.drives()] + (["--profile", self.profile] if self.profile else []) + (["--tls"] if self.tls else [])

    def drives(self):
        """What it stores on: six files that stand for devices, or directories of another kind, under its root."""
        if not self.devices:
            return ["--drives", "6", "--drive-size", "4GiB"]
        kinds = {"dir": ["dir"] * 4, "kfs": ["kfs"] * 4, "mixed": ["raw", "kfs", "dir"] * 2}[self.devices]
        arguments = []
        for i, kind in enumerate(kinds):
            path = pathlib.Path(self.root) / f"{kind}-{i}"
            if kind == "raw" and not path.exists():
                path.touch()
                os.truncate(path, 4 << 30)
            arguments += ["--device", str(path) if kind == "raw" else f"{kind}:{path}"]
        return arguments

    def learn_keys(self):
        described = json.loads((self.root / "endpoints.json").read_text())
        self.access_key, self.secret_key = described["access_key"], described["secret_key"]
        self.endpoint = described["s3"] if "://" in described["s3"] else f"{'https' if self.tls else 'http'}://{described['s3']}"

    def check(self):
        """Its own proof of its invariants, on the stopped or running node; raises with the report when it is not sound."""
        done = subprocess.run([self.binary, "fsck", "--root", self.root], capture_output=True, text=True, timeout=120, env=environment.clean())
        if done.returncode != 0:
            raise RuntimeError(f"fsck: {(done.stdout + done.stderr).strip()[-1500:]}")

    def add_user(self, access_key, secret_key, role="user"):
        """The one place that knows Quarry's command line for users. The name of the user is its access key."""
        administrator = ["--administrator"] if role == "admin" else []
        for arguments, text in ((["user", "create", access_key, *administrator], None),
                                (["key", "create", access_key, "--key", access_key, "--secret-from-stdin"], secret_key + "\n")):
            subprocess.run([self.binary, *arguments, "--root", self.root], input=text, text=True, check=True, capture_output=True,
                           env=environment.clean())


class Minio(OwnedServer):
    name = "minio"

    def command(self):
        if self.tls:
            self.make_certificate(self.root / "certs", "public.crt", "private.key")
        return [environment.tool("minio"), "server", "--quiet", "--address", f"127.0.0.1:{self.port}",
                "--console-address", f"127.0.0.1:{self.admin_port}", "--certs-dir", self.root / "certs", self.root / "drive{1...4}"]

    def variables(self):
        # Four folders on one disk are refused unless it believes in a CI.
        return {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key, "MINIO_CI_CD": "1", "MINIO_DOMAIN": "localhost",
                "MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off"}

    def add_user(self, access_key, secret_key, role="user"):
        scheme, rest = self.endpoint.split("://")
        mc = [environment.tool("mc"), "--config-dir", self.root / "mc", "--insecure", "admin"]
        env = {**environment.clean(), "MC_HOST_peer": f"{scheme}://{self.access_key}:{self.secret_key}@{rest}"}
        policy = "consoleAdmin" if role == "admin" else "readwrite"
        subprocess.run([*mc, "user", "add", "peer", access_key, secret_key], check=True, capture_output=True, env=env)
        subprocess.run([*mc, "policy", "attach", "peer", policy, "--user", access_key], check=True, capture_output=True, env=env)


class Versitygw(OwnedServer):
    """versitygw's own gateway over a folder: what its suite passes completely."""
    name = "versitygw"

    def command(self):
        for folder in ("data", "versions", "iam", "work"):
            (self.root / folder).mkdir(exist_ok=True)
        tls = []
        if self.tls:
            self.make_certificate(self.root / "certs", "public.crt", "private.key")
            tls = ["--cert", self.root / "certs/public.crt", "--key", self.root / "certs/private.key"]
        return [environment.tool("versitygw"), "--port", f"127.0.0.1:{self.port}", "--access", self.access_key, "--secret", self.secret_key,
                "--iam-dir", self.root / "iam", *tls, "posix", "--versioning-dir", self.root / "versions", self.root / "data"]

    def add_user(self, access_key, secret_key, role="user"):
        subprocess.run([environment.tool("versitygw"), "admin", "--allow-insecure", "-a", self.access_key, "-s", self.secret_key, "-er", self.endpoint,
                        "create-user", "-a", access_key, "-s", secret_key, "-r", role], check=True, capture_output=True, env=environment.clean())


class Reference(OwnedServer):
    """A correct server of our own for the linearizability suite alone: what must pass, kills included."""
    name = "reference"

    def command(self):
        return [environment.tool("linearizability"), "reference", f"127.0.0.1:{self.port}", self.root / "log.json"]

    def stop(self):
        self.process.send_signal(signal.SIGKILL)  # it knows no graceful end
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)
        self.log_path.unlink(missing_ok=True)


KINDS = {"quarry": Quarry, "minio": Minio, "versitygw": Versitygw, "reference": Reference}
