"""What cases_faults.py breaks, and how: file systems of their own on loop devices, and the load that must come through it.

Every fault here is one that the kernel makes: a file system that turns read-only, fails each access, hangs or is gone. Nothing is injected."""
import ctypes
import fcntl
import functools
import os
import random
import re
import struct
import subprocess
import tempfile
import threading
import time

from cases_drive_kinds import Pool
from cases_power import ABSENT, Promises
from node import Skip, random_bytes

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): from now on each access fails with EIO, until it is mounted again
SHUTDOWN_WITHOUT_FLUSH = 2


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, (done.stderr or done.stdout).strip()


def must(*command):
    done, said = run(*command)
    assert done, f"{' '.join(command)}: {said}"


class Disk:
    """An ext4 of its own in an image file, mounted over a loop device at `path`."""

    def __init__(self, size=768 << 20, folder=None, options=()):
        self.folder = folder or tempfile.mkdtemp(prefix="quarry-disk-", dir=os.environ.get("TMPDIR") or "/var/tmp")
        self.image, self.path = os.path.join(self.folder, "image"), os.path.join(self.folder, "mounted")
        self.frozen = False
        os.makedirs(self.path, exist_ok=True)
        with open(self.image, "wb") as f:
            f.truncate(size)
        must("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", *options, self.image)
        self.mount()

    def mount(self):
        must("mount", "-o", "loop,errors=remount-ro", self.image, self.path)

    def remount(self, mode):
        return run("mount", "-o", f"remount,{mode}", self.path)

    def shut_down(self):
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_WITHOUT_FLUSH))
        finally:
            os.close(handle)

    def freeze(self):
        must("fsfreeze", "-f", self.path)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self.frozen = False
            must("fsfreeze", "-u", self.path)

    def unmount(self):
        must("umount", self.path)

    def detach(self):
        """umount -l: the path is empty at once, what is open stays open."""
        must("umount", "-l", self.path)

    def free(self):
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def discard(self):
        try:
            self.thaw()
        except AssertionError:
            pass
        while os.path.ismount(self.path):
            if not run("umount", "-l", self.path)[0]:
                break
        subprocess.run(["rm", "-rf", self.folder], check=False)


@functools.cache
def why_no_mounts():
    """Why no file system can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    folder = tempfile.mkdtemp(prefix="quarry-disk-", dir=os.environ.get("TMPDIR") or "/var/tmp")
    try:
        Disk(32 << 20, folder).discard()
    except (AssertionError, OSError) as error:
        return f"mounting is not allowed here: {error}"
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)
    return None


def needs_mounts():
    if why_no_mounts():
        raise Skip(why_no_mounts())


class FaultyPool(Pool):
    """A pool in which some drives lie on disks of their own. `kinds`: as for Pool; `disks`: index of the drive -> Disk."""

    def __init__(self, kinds, disks, *args, device=None):
        self.disks, self.device = disks, device  # the LoopDevice in place of a file on its disk
        super().__init__(kinds, *args)

    def make(self, kind, i):
        if i not in self.disks:
            return super().make(kind, i)
        path = self.place(i)
        if self.device:
            return self.device.path
        if kind != "raw":
            return f"{kind}:{path}"
        if not os.path.exists(path):
            with open(path, "wb") as f:
                f.truncate(512 << 20)
        return path

    def place(self, i):
        return os.path.join(self.disks[i].path if i in self.disks else self.home, f"{self.kinds[i]}-{i}")

    def __exit__(self, *details):
        for disk in self.disks.values():
            try:
                disk.thaw()
            except AssertionError:
                pass
        super().__exit__(*details)
        for disk in self.disks.values():
            disk.discard()

    def state(self, i):
        return self.drive(i + 1)["state"]

    def enable(self, i):
        self.enable_drive(i + 1)

    def comes_to_rest(self, seconds=180):
        def rest():
            repair = self.admin("GET", "/v1/status")["repair"]
            return repair["pending_writes"] == 0 and repair["activity"] == "idle"
        self.wait_for(rest, seconds)


class Load:
    """Clients that put, overwrite, read and delete; each key has one writer. Reads are judged at once."""
    SIZES = [0, 10, 4000, 30_000, 200_000, 1_500_000]

    def __init__(self, node, clients=6, sizes=None, seed=0, keys=12, full=False):
        """full: that there is no room is an answer to expect."""
        self.node, self.sizes, self.keys, self.full = node, sizes or self.SIZES, keys, full
        self.promises = Promises()
        self.stop_asked = threading.Event()
        self.wrong = []      # what must not happen
        self.refused = {}    # (status, code of S3) -> how often, for writes
        self.slowest = 0.0   # seconds, of any request
        self.last_write = 0.0
        self.writes = self.reads = 0
        self.threads = [threading.Thread(target=self.work, args=(f"{seed}-{n}",), daemon=True) for n in range(clients)]

    def __enter__(self):
        status, _, text = self.node.s3("PUT", "/bkt")
        assert status in (200, 409), text[:300]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stop_asked.set()
        for thread in self.threads:
            thread.join(150)
        if kind is None:
            assert not any(thread.is_alive() for thread in self.threads), "a client has had no answer for 150 s"
            assert not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:4]}"

    def ask(self, method, key, body=b""):
        began = time.time()
        status, headers, text = self.node.s3(method, f"/bkt/{key}", body)
        self.slowest = max(self.slowest, time.time() - began)
        return status, text

    def work(self, name):
        rng = random.Random(name)
        while not self.stop_asked.is_set():
            key, dice = f"{name}/{rng.randrange(self.keys)}", rng.random()
            try:
                if dice < 0.4:
                    self.read(key)
                else:
                    self.write(key, ABSENT if dice < 0.5 else random_bytes(rng.choice(self.sizes), rng.random()))
            except OSError as error:
                self.wrong.append(f"{key}: {error!r}")
                return

    def read(self, key):
        status, text = self.ask("GET", key)
        self.reads += 1
        if status not in (200, 404):
            self.wrong.append(f"GET {key}: {status} {text[:300]}")
        elif (text if status == 200 else ABSENT) not in self.promises.right(key):
            self.wrong.append(f"GET {key}: {status}, {len(text)} bytes that nobody was promised")

    def write(self, key, body):
        self.promises.ask(key, body)
        status, text = self.ask("DELETE" if body is ABSENT else "PUT", key, body or b"")
        if status in (200, 204):
            self.promises.answer(key, body)
            self.writes += 1
            self.last_write = time.time()
            return
        code = re.search(rb"<Code>([^<]*)<", text)
        kind = (status, code[1].decode() if code else text[:100])
        self.refused[kind] = self.refused.get(kind, 0) + 1
        if status not in ((503, 507) if self.full else (503,)):
            self.wrong.append(f"write of {key}: {status} {text[:300]}")
        time.sleep(0.02)

    def refused_for_good(self):
        """Answers that a client does not repeat."""
        return {kind: count for kind, count in self.refused.items() if kind[0] == 507}

    def goes_on(self, count=20, seconds=120):
        """Until so many further writes were acknowledged."""
        goal, deadline = self.writes + count, time.time() + seconds
        while self.writes < goal:
            assert time.time() < deadline, f"{self.writes - goal + count} of {count} writes were acknowledged in {seconds} s; refused: {self.refused}"
            time.sleep(0.05)

    def tell(self):
        print(f"   {self.node.kinds}: {self.writes} writes, {self.reads} reads, slowest {self.slowest:.1f} s, refused {self.refused}", flush=True)

    def compare(self):
        """Every object byte for byte with what was promised."""
        for key in sorted(self.promises.maybe):
            status, _, body = self.node.s3("GET", f"/bkt/{key}")
            assert status in (200, 404), f"{key}: {status} {body[:300]}"
            found = body if status == 200 else ABSENT
            assert found in self.promises.right(key), f"{key}: {'absent' if found is ABSENT else f'{len(found)} bytes'}, which nobody was promised"
            self.promises.sure[key], self.promises.maybe[key] = found, []
        return len(self.promises.maybe)


class LoopDevice:
    """A block device over a file of a Disk: it does what the disk below it does."""

    def __init__(self, disk, size=512 << 20):
        self.file = os.path.join(disk.path, "device")
        with open(self.file, "wb") as f:
            f.truncate(size)
        done = subprocess.run(["losetup", "--find", "--show", self.file], capture_output=True, text=True, check=True)
        self.path = done.stdout.strip()

    def close(self):
        run("losetup", "--detach", self.path)


class NestedDisk(Disk):
    """An ext4 whose loop device lies on another ext4: when that one fails, this one sees I/O errors below it, as on a dying drive."""

    def __init__(self, size=640 << 20):
        self.below = Disk(size + (160 << 20))
        super().__init__(size, self.below.path)

    def fail_below(self):
        self.below.shut_down()

    def mend_below(self):
        must("umount", self.path)
        must("umount", self.below.path)
        self.below.mount()
        self.mount()

    def discard(self):
        while os.path.ismount(self.path) and run("umount", "-l", self.path)[0]:
            pass
        self.below.discard()


class Mute:
    """A file system over a directory that never answers, as of a server that died: opening, listing, anything. (FUSE without a program.)"""

    def __init__(self, path):
        self.path = path
        try:
            self.handle = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            raise Skip(f"/dev/fuse cannot be opened here: {error}") from error
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"mute", path.encode(), b"fuse", 0, f"fd={self.handle},rootmode=40000,user_id=0,group_id=0".encode()) != 0:
            os.close(self.handle)
            raise Skip(f"FUSE cannot be mounted here: {os.strerror(ctypes.get_errno())}")

    def end(self):
        """Who waits gets an error; the directory is what it was."""
        if self.handle is None:
            return
        os.close(self.handle)
        self.handle = None
        must("umount", "-l", self.path)
