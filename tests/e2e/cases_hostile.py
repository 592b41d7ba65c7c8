"""What bad input and bad clients get: a clear error, bounded memory, and no lost byte."""
import json
import os
import resource
import socket
import ssl
import subprocess
import time
import urllib.parse

from node import BINARY, Node, Skip, random_bytes


def memory_mib(node):
    for line in open(f"/proc/{node.process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def data_bytes(node):
    """Payload on the drives beyond the metadata's own few frames."""
    return node.admin("GET", "/v1/status")["space"]["payload_bytes"]


def raw(node, data, wait=60.0):
    """Sends bytes, returns what comes back until the peer closes or `wait` seconds pass."""
    with socket.create_connection(("127.0.0.1", node.ports[0])) as s:
        s.settimeout(wait)
        s.sendall(data)
        answer = b""
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                answer += piece
        except (socket.timeout, ConnectionResetError):
            pass
        return answer


def test_garbage_and_oversized_heads_are_refused():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        assert raw(node, b"\x16\x03\x01 nonsense\r\n\r\n")[:12] in (b"", b"HTTP/1.1 400")
        assert b" 400 " in raw(node, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        big = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
        first = raw(node, big).split(b"\r\n")[0]
        assert b" 431" in first or b" 400" in first, first
        status, _, _ = node.s3("GET", "/")
        assert status == 200


def test_a_client_that_vanishes_mid_upload_leaves_nothing():
    with Node("--drives", "4", "--drive-size", "512MiB") as node:
        node.create_bucket("bkt")
        body = random_bytes(8_000_000, 1)
        url = urllib.parse.urlparse(node.endpoints["s3"])
        # a signed head, then half the body, then nothing
        connection_head = []

        class Grab(Exception):
            pass

        import http.client
        original = http.client.HTTPConnection.request

        def grab(self, method, path, body=None, headers=None):
            connection_head.append((method, path, headers))
            raise Grab

        http.client.HTTPConnection.request = grab
        try:
            for i in range(20):
                try:
                    node.s3("PUT", f"/bkt/half{i}", body)
                except Grab:
                    pass
        finally:
            http.client.HTTPConnection.request = original
        for method, path, headers in connection_head:
            head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + f"content-length: {len(body)}\r\n\r\n"
            with socket.create_connection((url.hostname, url.port)) as s:
                s.sendall(head.encode() + body[: len(body) // 2])
        deadline = time.time() + 120
        while True:
            report = node.admin("POST", "/v1/fsck")
            if report["data_rows"] == 0 and report["orphan_chunks"] == 0 and report["sound"] and data_bytes(node) < 100_000:
                break
            assert time.time() < deadline, report
            time.sleep(0.5)
        assert node.s3("GET", "/bkt/half0")[0] == 404


def test_ten_thousand_idle_connections_cost_little():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 10_500:
        raise Skip(f"a process may have only {hard} file handles here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000 if hard == resource.RLIM_INFINITY else min(20000, hard), hard))
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.create_bucket("bkt")
        before = memory_mib(node)
        idle = []
        try:
            for i in range(10_000):
                s = socket.socket()
                s.bind((f"127.0.0.{2 + i // 5000}", 0))
                s.connect(("127.0.0.1", node.ports[0]))
                idle.append(s)
            node.put("bkt", "x", b"still alive")
            assert node.get("bkt", "x") == b"still alive"
            grown = memory_mib(node) - before
            assert grown < 160, f"{grown:.0f} MiB for 10,000 idle connections"
        finally:
            for s in idle:
                s.close()
        time.sleep(1)
        assert node.get("bkt", "x") == b"still alive"


def test_slow_heads_are_cut_off_and_others_are_served():
    with Node("--drives", "2", "--drive-size", "256MiB") as node:
        node.create_bucket("bkt")
        slow = []
        for _ in range(200):
            s = socket.create_connection(("127.0.0.1", node.ports[0]))
            s.sendall(b"GET / HTTP/1.1\r\nHo")
            slow.append(s)
        node.put("bkt", "x", b"1")
        slow[0].settimeout(60)
        assert slow[0].recv(100)[:12] in (b"", b"HTTP/1.1 408"), "a head that never ends is waited for without end"
        for s in slow:
            s.close()
        assert node.get("bkt", "x") == b"1"


def test_tls_is_1_3_only_and_serves():
    with Node("--drives", "2", "--drive-size", "256MiB", "--tls") as node:
        assert node.endpoints["s3"].startswith("https://")
        ca = os.path.join(node.root, "tls/certificate.pem")
        context = ssl.create_default_context(cafile=ca)
        with socket.create_connection(("127.0.0.1", node.ports[0])) as s, context.wrap_socket(s, server_hostname="127.0.0.1") as t:
            assert t.version() == "TLSv1.3"
        old = ssl.create_default_context(cafile=ca)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with socket.create_connection(("127.0.0.1", node.ports[0])) as s, old.wrap_socket(s, server_hostname="127.0.0.1"):
                raise AssertionError("TLS 1.2 was accepted")
        except (ssl.SSLError, ConnectionError):
            pass
        node.cli("bucket", "create", "bkt")
        assert json.loads(node.cli("bucket", "list", "--json").stdout)[0]["name"] == "bkt"
        mode = os.stat(os.path.join(node.root, "tls/key.pem")).st_mode & 0o777
        assert mode == 0o600, oct(mode)
