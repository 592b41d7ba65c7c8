#!/usr/bin/env python3
"""What the load generator, the loopback and the processors allow at most: answers every GET with bytes from memory and drops what a PUT
brings; no storage, no checks, no S3. Large bodies only: for small requests the interpreter is the limit. usage: memory_server.py SIZE; prints its port."""
import socket
import sys
import threading

BODY = memoryview(bytearray(int(sys.argv[1])))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
EMPTY = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'


def serve(connection):
    scratch = memoryview(bytearray(1 << 20))
    pending = b""
    while True:
        while b"\r\n\r\n" not in pending:
            more = connection.recv(65536)
            if not more:
                return
            pending += more
        head, pending = pending.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        left = length - len(pending)
        pending = b"" if left >= 0 else pending[length:]
        while left > 0:
            got = connection.recv_into(scratch, min(left, len(scratch)))
            if got == 0:
                return
            left -= got
        if head.startswith(b"GET"):
            connection.sendall(HEAD, socket.MSG_MORE)
            connection.sendall(BODY)
        else:
            connection.sendall(EMPTY)


listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
