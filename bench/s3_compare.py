#!/usr/bin/env python3
"""S3 side by side: Quarry and MinIO on the same disk, with the same number of drives and the same redundancy, under the same load generator
(`quarry bench`), in one run. Prints for each row both servers' rates, their CPU-seconds, and the ratios of the issue's table.

What differs: MinIO keeps its drives as directories of one ext4 file system (it offers nothing else), Quarry as files with O_DIRECT. Both
sync before they acknowledge. Rows:

  OPsize        put, get and mixed (70 % get) of 4, 5, 8, 64, 110 and 129 KiB and 10 MiB. 4 KiB is inline with its record, up to 128 KiB is
                packed and mirrored, larger is cut into stripes. A get row begins after every object was read twice.
  get...-cold   MinIO's page cache is dropped and Quarry is restarted (its cache is its own memory), then both read as much of other data as
                Quarry's cache holds (--cache), so that neither pays for memory that it takes for the first time; then every object is read
                once. A virtual disk may be cached by the machine below, which nobody here can drop: the row says so.
  get10m-fresh  every object is read once, for the first time after it was written, by the process that wrote it.
  get10m-set    a set of --set bytes is read round and round, with caches as large as the servers make them by themselves; each server has the
                machine to itself meanwhile, the other is stopped and the page cache dropped before.

--memory puts each server into a memory cgroup of that size, page cache included: with --keys enough, neither has the set in a cache, and a row is
warmed up for 5 seconds instead of by reading everything twice. --peer-keys gives MinIO fewer keys, where writing as many would take hours; both
numbers are printed. The rows of one size work on the same objects.

usage: bench/s3_compare.py [--rows put10m,get10m-cold,get10m,put4k,get4k,mixed4k] [--seconds 10] [--drives 6] [--parity 2] [--sign-body]"""
import argparse
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUARRY = os.environ.get("QUARRY", os.path.join(HERE, "build/release/quarry"))
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", default="put10m,get10m-cold,get10m,put4k,get4k,mixed4k")
parser.add_argument("--seconds", type=int, default=10)
parser.add_argument("--drives", type=int, default=6)
parser.add_argument("--parity", type=int, default=2)
parser.add_argument("--connections", type=int, default=32, help="for the 4 KiB rows")
parser.add_argument("--large-connections", type=int, default=8, help="for the 10 MiB rows")
parser.add_argument("--sign-body", action="store_true", help="sign the SHA-256 of every body, as SDKs do over plain HTTP")
parser.add_argument("--server-cpus", default="", help="taskset list for the servers, e.g. 0; with --client-cpus gives each its own core")
parser.add_argument("--client-cpus", default="")
parser.add_argument("--ceiling", action="store_true", help="measure also what the client reaches against a server that only has memory, and what fio reads from the disk (10 MiB rows)")
parser.add_argument("--nice", type=int, default=0, help="of the servers and the load alike; negative on a machine that others use")
parser.add_argument("--cache", default="768MiB", help="Quarry's read cache, `auto` leaves it to Quarry; MinIO has the machine's page cache")
parser.add_argument("--keys", type=int, default=5000, help="objects of the rows of up to 129 KiB")
parser.add_argument("--peer-keys", type=int, default=0, help="of MinIO, where that is to be fewer")
parser.add_argument("--drive-size", default="8GiB", help="of each of Quarry's drives")
parser.add_argument("--memory", default="", help="a memory cgroup of this size for each server, page cache included")
parser.add_argument("--set", default="4GiB", help="bytes of the row get10m-set")
parser.add_argument("--json", action="store_true")
args = parser.parse_args()

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size_of(text):
    return int(text[:-3]) * UNITS[text[-3:]]


ROWS = {  # name: (operation, size, objects, state of the caches)
    "put10m": ("put", "10MiB", 60, "warm"),
    "get10m-cold": ("get", "10MiB", 160, "cold"),
    "get10m": ("get", "10MiB", 60, "warm"),
    "get10m-fresh": ("get", "10MiB", 160, "fresh"),
    "get10m-set": ("get", "10MiB", size_of(args.set) // (10 * 2**20), "set"),
}
for kib in (4, 5, 8, 64, 110, 129):
    for operation in ("put", "get", "mixed"):
        ROWS[f"{operation}{kib}k"] = (operation, f"{kib}KiB", args.keys, "warm")
    ROWS[f"get{kib}k-cold"] = ("get", f"{kib}KiB", args.keys, "cold")


def virtual_disk(path):
    """The driver, if the disk below is one that another machine may cache."""
    device = os.stat(path).st_dev
    driver = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/device/driver")
    return os.path.basename(driver) if any(word in driver for word in ("virtio", "xen", "vmw", "hv_", "loop")) else ""


class MemoryGroup:
    """A memory cgroup (version 1 or 2) of --memory bytes; entering it is all that a server does in it."""

    def __init__(self, name):
        v1 = "/sys/fs/cgroup/memory"
        self.path = os.path.join(v1 if os.path.isdir(v1) else "/sys/fs/cgroup", f"quarry-bench-{os.getpid()}-{name}")
        os.mkdir(self.path)
        limit = "memory.limit_in_bytes" if os.path.isdir(v1) else "memory.max"
        with open(os.path.join(self.path, limit), "w") as f:
            f.write(str(size_of(args.memory)))

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
            f.write(str(os.getpid()))

    def remove(self):
        try:
            os.rmdir(self.path)
        except OSError as error:
            print(f"{self.path} stays: {error}", file=sys.stderr)



def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def drop_page_cache():
    subprocess.run(["sync"], check=True)
    open("/proc/sys/vm/drop_caches", "w").write("3")


def pinned(cpus, command):
    if args.nice != 0:
        command = ["nice", "-n", str(args.nice), *command]
    return ["taskset", "-c", cpus, *command] if cpus else command


class Server:
    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory_mib(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


class Quarry(Server):
    name = "quarry"
    longest_step, long_steps = 0.0, 0

    def __init__(self, work):
        self.group = MemoryGroup(self.name) if args.memory else None
        self.root = os.path.join(work, "quarry")
        os.makedirs(self.root)
        self.start()

    def start(self):
        endpoints = os.path.join(self.root, "endpoints.json")
        if os.path.exists(endpoints):
            os.unlink(endpoints)
        k = args.drives - args.parity
        self.process = subprocess.Popen(
            pinned(args.server_cpus, [QUARRY, "up", "--root", self.root, "--s3", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}",
                                      "--drives", str(args.drives), "--drive-size", args.drive_size, "--profile", f"ec:{k}+{args.parity}", *([] if args.cache == "auto" else ["--cache-size", args.cache]), "--log-level", "warning"]),
            preexec_fn=self.group.enter if self.group else None, stdout=subprocess.DEVNULL, stderr=open(os.path.join(self.root, "log"), "ab"))
        while not os.path.exists(endpoints):
            if self.process.poll() is not None:
                sys.exit("quarry did not start: " + open(os.path.join(self.root, "log")).read()[-1000:])
            time.sleep(0.05)
        known = json.load(open(endpoints))
        self.url, self.access, self.secret, self.admin = known["s3"], known["access_key"], known["secret_key"], known["admin"]

    def make_cold(self):
        self.stop()
        self.start()

    def stop(self):
        self.note_steps()
        super().stop()

    def note_steps(self):
        """The loops of this process so far; those of one that was stopped are remembered."""
        text = urllib.request.urlopen(self.admin + "/metrics", timeout=10).read().decode()
        steps = dict(re.findall(r"^(io_loop_\w+) (\S+)$", text, re.M))
        self.longest_step = max(self.longest_step, float(steps["io_loop_step_seconds_max"]))
        self.long_steps += int(steps["io_loop_long_steps"])


class Minio(Server):
    name = "minio"

    def __init__(self, work):
        self.group = MemoryGroup(self.name) if args.memory else None
        binary = shutil.which("minio") or os.path.join(os.environ.get("QUARRY_TOOLS", os.path.expanduser("~/.cache/quarry-tools")), "bin/minio")
        if not os.path.exists(binary):
            sys.exit("no minio: run tests/conformance/s3/install minio")
        self.binary, self.work = binary, work
        self.access, self.secret = "benchuser", "benchsecret"
        self.start()

    def start(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        env = dict(os.environ, MINIO_ROOT_USER=self.access, MINIO_ROOT_PASSWORD=self.secret, MINIO_STORAGE_CLASS_STANDARD=f"EC:{args.parity}",
                   MINIO_CI_CD="1", MINIO_BROWSER="off")
        env.pop("AWS_CA_BUNDLE", None)
        drives = [os.path.join(self.work, f"minio/d{i + 1}") for i in range(args.drives)]
        for drive in drives:
            os.makedirs(drive, exist_ok=True)
        self.process = subprocess.Popen(pinned(args.server_cpus, [self.binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", *drives]), env=env,
                                        preexec_fn=self.group.enter if self.group else None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url + "/minio/health/live", timeout=1)
                break
            except OSError:
                time.sleep(0.1)

    def make_cold(self):
        drop_page_cache()


class Ceiling(Server):
    """No store at all (memory_server.py): what the client and the loopback can do on these processors."""
    name = "ceiling"
    access, secret = "none", "none"

    def __init__(self, size):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory_server.py")
        self.process = subprocess.Popen(pinned(args.server_cpus, [sys.executable, script, str(size)]), stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"


def drive_reads():
    """MiB/s that fio reads of a file on the same disk, 1 MiB at a time, 16 at once, past the page cache."""
    path = os.path.join(work, "fio")
    fio = ["fio", "--name=f", "--filename=" + path, "--bs=1M", "--ioengine=io_uring", "--direct=1", "--thread=1", "--fixedbufs=1", "--iomem_align=2m", "--iodepth=16",
           "--size=2G", "--output-format=json"]
    subprocess.run([*fio, "--rw=write"], check=True, capture_output=True)
    done = subprocess.run(pinned(args.server_cpus, [*fio, "--rw=randread"]), check=True, capture_output=True, text=True)
    os.unlink(path)
    return json.loads(done.stdout)["jobs"][0]["read"]["bw_bytes"] / 2**20


def load(server, operation, size, objects, connections, seconds=0, prepare=False, bucket=None):
    """seconds 0: each object once."""
    secret = os.path.join(work, "secret")
    with open(secret, "w") as f:
        f.write(server.secret)
    os.chmod(secret, 0o600)
    command = [QUARRY, "bench", operation, "--size", size, "--objects", str(objects), "--connections", str(connections), "--s3", server.url, "--admin", server.url,
               "--access-key", server.access, "--secret-key-file", secret, "--json", "--keep", "--bucket", bucket or "bench-" + size.lower()]
    command += ["--duration", f"{seconds}s"] if seconds else ["--each-once"]
    if not prepare:
        command.append("--no-prepare")
    if args.sign_body:
        command.append("--sign-body")
    done = subprocess.run(pinned(args.client_cpus, command), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"load on {server.name} failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    return json.loads(done.stdout)


work = tempfile.mkdtemp(prefix="quarry-bench-", dir="/var/tmp")
servers = []
prepared = set()  # (server, bucket)
report = []
status = 0
try:
    servers = [Quarry(work), Minio(work)]
    for row in args.rows.split(","):
        operation, size, keys, state = ROWS[row]
        cold = state == "cold"
        connections = args.large_connections if size.endswith("MiB") else args.connections
        measured = {}
        for server in servers:
            if state == "set":
                for other in servers:
                    if other is not server and other.process.poll() is None:
                        other.stop()
                drop_page_cache()
                if server.process.poll() is not None:
                    server.start()
            objects = args.peer_keys if server.name == "minio" and args.peer_keys and size.endswith("KiB") else keys
            # The data of a size, made by the server itself, each object once. What is read for the first time since is data of its own.
            bucket = "bench-" + (row if state in ("cold", "fresh", "set") else size.lower())
            if (server.name, bucket) not in prepared:
                load(server, "put", size, objects, connections, prepare=True, bucket=bucket)
                prepared.add((server.name, bucket))
            if operation == "put" or args.memory and state == "warm":
                load(server, operation, size, objects, connections, seconds=2 if operation == "put" else 5, bucket=bucket)
            if cold:
                load(server, "put", "10MiB", 110, 8, prepare=True, bucket="bench-other")
                server.make_cold()
                load(server, "get", "10MiB", 110, 8, bucket="bench-other")
            elif operation != "put" and state != "fresh" and not args.memory:
                for _ in range(2 if state == "warm" else 1):
                    load(server, "get", size, objects, connections, bucket=bucket)
            before = server.cpu_seconds()
            result = load(server, operation, size, objects, connections, seconds=0 if state in ("cold", "fresh") else args.seconds, bucket=bucket)
            result["keys"] = objects
            result["server_cpu_seconds"] = server.cpu_seconds() - before
            result["server_peak_mib"] = server.peak_memory_mib()
            measured[server.name] = result
        ours, theirs = measured["quarry"], measured["minio"]
        ceiling = ""
        if args.ceiling and size == "10MiB":
            nothing = Ceiling(10 << 20)
            servers.append(nothing)
            most = load(nothing, operation, size, objects, connections, seconds=args.seconds)
            nothing.process.kill()
            nothing.process.wait()
            servers.remove(nothing)
            ceiling = f" | ceiling {most['mib_per_second']:.0f} MiB/s, quarry at {ours['mib_per_second'] / most['mib_per_second']:.2f} of it"
        if args.ceiling and cold:
            most = drive_reads()
            ceiling += f", drive {most:.0f} MiB/s, quarry at {ours['mib_per_second'] / most:.2f} of it"
        gib = lambda r: r["mib_per_second"] * r["seconds"] / 1024
        per_unit = (lambda r: r["server_cpu_seconds"] / gib(r)) if size.endswith("MiB") else (lambda r: r["server_cpu_seconds"] / r["requests"] * 1e6)
        below = virtual_disk(work) if cold else ""
        notes = f", keys {ours['keys']} / {theirs['keys']}" if size.endswith("KiB") else ""
        if below:
            notes += f"; cold here, but the disk is virtual ({below}) and the machine below may have a cache"
        line = {"row": row, "below": below, "connections": connections, "quarry": ours, "minio": theirs,
                "rate_ratio": ours["requests_per_second"] / theirs["requests_per_second"], "cpu_ratio": per_unit(ours) / per_unit(theirs)}
        report.append(line)
        unit = "CPU-s/GiB" if size.endswith("MiB") else "us CPU/request"
        rate = (lambda r: f"{r['mib_per_second']:.0f} MiB/s") if size.endswith("MiB") else (lambda r: f"{r['requests_per_second']:.0f}/s")
        print(f"{row:12} {connections:3} connections | quarry {rate(ours):>12} {per_unit(ours):8.2f} {unit} p99 {ours['p99_ms']:.1f} ms, client {ours['client_cpu_seconds'] / ours['seconds']:.2f} cores"
              f" | minio {rate(theirs):>12} {per_unit(theirs):8.2f} {unit} p99 {theirs['p99_ms']:.1f} ms"
              f" | rate x{line['rate_ratio']:.2f}, CPU x{line['cpu_ratio']:.3f}{ceiling}{notes}", flush=True)
        if state == "set":
            for server in servers:
                if server.process.poll() is not None:
                    server.start()
    print("peak memory: " + ", ".join(f"{s.name} {s.peak_memory_mib():.0f} MiB" for s in servers))
    if args.json:
        print(json.dumps(report, indent=1))
    quarry = next(server for server in servers if server.name == "quarry")
    quarry.note_steps()
    print(f"steps on quarry's loops: {quarry.long_steps} took 10 ms of CPU time or more, the longest step {quarry.longest_step * 1e3:.1f} ms")
    if quarry.long_steps > 0:
        status = 1
finally:
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        if getattr(server, "group", None):
            server.group.remove()
    shutil.rmtree(work, ignore_errors=True)
sys.exit(status)
