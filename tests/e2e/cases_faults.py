"""Drives that fail as real ones do, under load: a file system turns read-only, loses its permissions, hangs, fills up, fails each access, or is
gone. What was acknowledged stays readable throughout, the drive is disabled with its reason, and comes back with `device enable`."""
import errno
import json
import os
import signal
import socket
import statistics
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from faults import Disk, FaultyPool, Load, LoopDevice, Mute, NestedDisk, must, needs_mounts, run
from node import BINARY, Skip, random_bytes

KFS, DIR = ["kfs"] * 3, ["dir"] * 3
MIXED = ["raw", "kfs", "dir", "raw", "dir"]


def all_at_once(cases):
    """Cases that mostly wait, side by side. Each is (name, function, arguments)."""
    failures, left_out = [], []

    def one(name, function, *arguments):
        began = time.time()
        try:
            function(*arguments)
            print(f"   {name}: {time.time() - began:.1f} s", flush=True)
        except Skip as why:
            left_out.append(str(why))
            print(f"   {name}: left out: {why}", flush=True)
        except Exception as error:  # noqa: BLE001: told below, with the others
            failures.append(f"{name}: {error}")
            print(f"   {name}: {error}", flush=True)

    threads = [threading.Thread(target=one, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "; ".join(failures)
    if len(left_out) == len(cases):
        raise Skip(left_out[0])


def expect_out_of_use(node, i, load, words, seconds=120):
    """The drive is taken out of use with a reason that says one of `words`, in status and on the command line; writes go on without it. A
    directory is disabled; a raw drive may be that, or be emptied, or count as missing."""
    good = ["disabled"] if node.kinds[i] != "raw" else ["disabled", "draining", "missing", "failed", "active", "read-only"]
    node.wait_for(lambda: node.state(i) in good and node.drive(i + 1)["reason"], seconds)
    reason = node.drive(i + 1)["reason"]
    assert any(word in reason for word in words), f"the reason of drive {i + 1} is: {reason}"
    assert reason in node.cli("status", check=False).stdout, "quarry status does not say why"
    load.goes_on()


def expect_used(node, i, seconds=120):
    """It takes new data again."""
    before = node.drive(i + 1)["used_bytes"]
    number = 0

    def more():
        nonlocal number, before
        for _ in range(10):
            number += 1
            node.put("bkt", f"more/{i}/{number}", random_bytes(20_000, number))
        drive = node.drive(i + 1)
        before = min(before, drive["used_bytes"])  # deleted data goes meanwhile
        return drive["used_bytes"] > before and not drive["reason"] and drive["state"] == "active"
    node.wait_for(more, seconds)


def finish(node, load):
    node.comes_to_rest()
    compared = load.compare()
    node.fsck()
    assert compared and load.writes > 30, f"{compared} objects, {load.writes} writes: nothing was tested"
    assert node.stop() == 0
    node.start()
    load.compare()
    node.fsck()
    load.tell()


def fault(kinds, victim, break_it, mend_it, words, disk=Disk, pool=FaultyPool, clients=6):
    with pool(kinds, {victim: disk()} if disk else {}) as node:
        what = node.disks.get(victim) or node.place(victim)
        with Load(node, clients) as load:
            load.goes_on(40)
            break_it(what)
            expect_out_of_use(node, victim, load, words)
            if kinds[victim] != "raw":
                refused = node.cli("device", "enable", str(victim + 1), check=False)
                assert refused.returncode != 0 and refused.stderr, "a drive that does not work was enabled"
            else:
                node.cli("device", "disable", str(victim + 1), "--force")  # lets go of it, so that it can be unmounted
            if disk:
                node.wait_for(lambda: not is_open(what.path, node.process.pid))
            mend_it(what)
            node.enable(victim)
            load.goes_on()
        expect_used(node, victim)
        finish(node, load)


def is_open(path, pid):
    """A process has files below the path open."""
    for handle in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{handle}").startswith(path + "/"):
                return True
        except OSError:
            pass
    return False


def remount_read_only(disk):
    # Refused while a file is open for writing; when the kernel gives up on a file system of itself it does not ask.
    for _ in range(50):
        if disk.remount("ro")[0]:
            return
        time.sleep(0.02)
    must("mount", "-o", "remount,abort", disk.path)


def make_writable(disk):
    if not disk.remount("rw")[0]:
        mount_again(disk)


def mount_again(disk):
    disk.unmount()
    disk.mount()


def test_a_file_system_turns_read_only_under_load():
    needs_mounts()
    words = ["read-only", "Read-only", "refuses writes", "cannot be written"]
    all_at_once([(f"{name} {kinds[victim]}", fault, kinds, victim, remount_read_only, make_writable, words)
                 for name, kinds, victim in [("pure", KFS, 1), ("pure", DIR, 1), ("mixed", MIXED, 1), ("mixed", MIXED, 2), ("mixed", MIXED, 0)]])


def test_each_access_to_a_file_system_fails_under_load():
    """Input/output errors of everything, and what was not synced is lost with them."""
    needs_mounts()
    words = ["nput/output error", "I/O error", "gone"]
    all_at_once([(f"{name} {kinds[victim]}", fault, kinds, victim, Disk.shut_down, mount_again, words)
                 for name, kinds, victim in [("pure", KFS, 0), ("pure", DIR, 0), ("mixed", MIXED, 1), ("mixed", MIXED, 4), ("mixed", MIXED, 3)]])


def test_the_disk_below_a_file_system_fails_under_load():
    """Writes fail below ext4, which turns read-only of itself."""
    needs_mounts()
    words = ["nput/output error", "ead-only", "gone", "cannot be written"]
    all_at_once([(f"{name} {kinds[victim]}", fault, kinds, victim, NestedDisk.fail_below, NestedDisk.mend_below, words, NestedDisk)
                 for name, kinds, victim in [("pure", KFS, 2), ("mixed", MIXED, 2)]])


# ---- permissions ------------------------------------------------------------------------------------------------------------------

class Unprivileged(FaultyPool):
    """A node that runs as nobody."""
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for path in [self.home, self.root, *(os.path.join(self.home, name) for name in os.listdir(self.home))]:
            os.chown(path, 65534, 65534)


def forbid(path):
    os.chmod(path, 0)


def allow(path):
    os.chmod(path, 0o700)


def take_away(path):
    must("chown", "-R", "root:root", path)
    must("chmod", "-R", "go=", path)


def give_back(path):
    must("chown", "-R", "65534:65534", path)


def make_immutable(path):
    run("chattr", "+i", path)
    if "i" not in subprocess.run(["lsattr", "-d", path], capture_output=True, text=True).stdout.split(" ")[0]:
        raise Skip("files cannot be made immutable here (CAP_LINUX_IMMUTABLE, or the file system)")
    run("chattr", "-R", "+i", path)  # files that vanish meanwhile are an error of chattr


def make_mutable(path):
    run("chattr", "-R", "-i", path)


def test_permissions_are_lost_under_load():
    if os.geteuid() != 0:
        raise Skip("only root can run a node as somebody else")
    words = ["ermission", "not permitted"]
    all_at_once([(f"chmod {kind[0]}", fault, kind, 1, forbid, allow, words, None, Unprivileged) for kind in (KFS, DIR)] +
                [(f"chown {MIXED[i]}, mixed", fault, MIXED, i, take_away, give_back, words, None, Unprivileged) for i in (1, 2)] +
                [(f"chattr +i {kind[0]}", fault, kind, 2, make_immutable, make_mutable, words, None, Unprivileged) for kind in (KFS, DIR)])


# ---- hanging ----------------------------------------------------------------------------------------------------------------------

def hang(kinds, victim, device=False):
    disk = Disk()
    loop = LoopDevice(disk) if device else None
    with FaultyPool(kinds, {victim: disk}, device=loop) as node:
        with Load(node) as load:
            load.goes_on(40)
            disk.freeze()
            node.wait_for(lambda: node.state(victim) in ("missing", "failed"))
            assert "hang" in node.drive(victim + 1)["reason"] or "answer" in node.drive(victim + 1)["reason"], node.drive(victim + 1)
            load.goes_on()
            disk.thaw()
            node.wait_for(lambda: node.state(victim) == "active", 60)  # without a command
            load.goes_on()
        expect_used(node, victim)
        finish(node, load)
    if loop:
        loop.close()


def hang_at_the_end(kinds, victim):
    """A node whose drive hangs ends all the same, and closes the others; nothing that was acknowledged is lost."""
    with FaultyPool(kinds, {victim: Disk()}) as node:
        with Load(node) as load:
            load.goes_on(40)
        node.disks[victim].freeze()

        def hopeless():
            try:
                node.s3("PUT", "/bkt/hopeless", bytes(100_000))
            except OSError:
                pass
        client = threading.Thread(target=hopeless)
        client.start()
        time.sleep(0.5)
        began = time.time()
        node.process.send_signal(signal.SIGTERM)
        # Gone, but for the threads that the kernel does not let go.
        node.wait_for(lambda: node.process.poll() is not None or "State:\tZ" in open(f"/proc/{node.process.pid}/status").read())
        took = time.time() - began
        print(f"   it ended {took:.1f} s after SIGTERM", flush=True)
        assert took < 15, took
        client.join()
        node.disks[victim].thaw()
        node.process.wait(60)
        node.start()
        node.wait_for(lambda: node.state(victim) == "active", 60)
        finish(node, load)


def hang_at_the_start(kinds, victim, device=False, unclean=False):
    """A node is started while a drive hangs: it goes without that drive, says so, and takes it back when it answers."""
    disk = Disk()
    loop = LoopDevice(disk) if device else None
    with FaultyPool(kinds, {victim: disk}, device=loop) as node:
        with Load(node) as load:
            load.goes_on(40)
        node.kill() if unclean else node.stop()
        disk.freeze()
        path = node.make(kinds[victim], victim)
        began = time.time()
        looked = None
        if not unclean and not device:  # a block device can be read, which is all that this does
            looked = subprocess.Popen([BINARY, "device", "fsck", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        node.start()
        waited = time.time() - began
        print(f"   {kinds[victim]}: ready after {waited:.1f} s", flush=True)
        assert waited < 100, waited
        drive = node.drive(victim + 1)
        assert drive["state"] in ("missing", "disabled", "failed"), drive
        assert "hang" in drive["reason"], drive
        assert drive["reason"] in node.cli("status", check=False).stdout
        assert "it hangs" in node.log_text(), node.log_tail()
        load.compare()
        with Load(node, seed=1) as more:
            more.goes_on(40)
            refused = node.cli("device", "enable", str(victim + 1), check=False)
            assert refused.returncode != 0 and "hang" in refused.stderr, refused.stderr
            disk.thaw()
            node.enable(victim)
            more.goes_on()
        if looked:
            said = looked.communicate(timeout=120)[0]
            assert "hangs" in said, said
        expect_used(node, victim)
        load.compare()
        finish(node, more)
    if loop:
        loop.close()


def expect_as_it_was(node, seconds=60):
    """Every drive is used, and nobody gave a command."""
    node.wait_for(lambda: all(node.state(i) == "active" and not node.drive(i + 1)["reason"] for i in range(len(node.kinds))), seconds)


def stands_still(kinds, how):
    """The file system below all drives freezes, or the whole node is stopped, for longer than a drive may hang. Reads go on where the system
    lets them, health and status answer, and when it is over all is as it was."""
    disk = Disk(2 << 30)
    with FaultyPool(kinds, {i: disk for i in range(len(kinds))}) as node:
        node.create_bucket("bkt")
        bodies = {f"{i}": random_bytes(200_000, i) for i in range(20)}
        for key, body in bodies.items():
            node.put("bkt", key, body)
        with Load(node, clients=3, sizes=[10_000, 300_000]) as load:
            load.goes_on(20)
            if how == "freeze":
                disk.freeze()
                for _ in range(45):
                    for key in list(bodies)[:3]:
                        assert node.get("bkt", key) == bodies[key]
                    began = time.time()
                    assert ask_health(node) == 200 and node.cli("status", check=False).returncode in (0, 1)
                    assert time.time() - began < 5, "health and status do not answer"
                    time.sleep(1)
                disk.thaw()
            else:
                node.process.send_signal(signal.SIGSTOP)
                time.sleep(45)
                node.process.send_signal(signal.SIGCONT)
                time.sleep(2)
                assert [node.state(i) for i in range(len(kinds))] == ["active"] * len(kinds)
            load.goes_on()
        expect_as_it_was(node)
        for key, body in bodies.items():
            assert node.get("bkt", key) == body
        finish(node, load)


def ask_health(node):
    with urllib.request.urlopen(node.endpoints["admin"] + "/health/live", timeout=5) as answer:
        return answer.status


def test_everything_stands_still_for_a_while():
    needs_mounts()
    all_at_once([(f"{how} {kinds[0]}", stands_still, kinds, how) for how in ("freeze", "stop") for kinds in (["raw"] * 6, KFS, DIR)])


def test_a_drive_hangs_under_load():
    needs_mounts()
    all_at_once([("pure kfs", hang, KFS, 0), ("pure dir", hang, DIR, 1), ("kfs in a mixed pool", hang, MIXED, 1), ("dir in a mixed pool", hang, MIXED, 4),
                 ("a file for a raw drive", hang, MIXED, 0), ("a raw block device", hang, MIXED, 3, True)] +
                [(f"{kinds[i]} while the node ends", hang_at_the_end, kinds, i) for kinds, i in ((KFS, 0), (DIR, 1), (MIXED, 0))])


def mute_at_the_start(kinds, victim):
    """Nothing that is asked of the directory ever returns, not even opening it."""
    with FaultyPool(kinds, {}) as node:
        with Load(node) as load:
            load.goes_on(40)
        node.stop()
        mute = Mute(node.place(victim))
        try:
            for verb in ("inspect", "fsck"):
                began = time.time()
                said = node.tool("device", verb, f"{kinds[victim]}:{node.place(victim)}")
                assert said.returncode != 0 and "hangs" in said.stderr and time.time() - began < 60, said
            said = node.cli("fsck", check=False)  # of the others
            assert "hangs" in said.stderr and "sound" in said.stdout, said
            node.start()
            drive = node.drive(victim + 1)
            assert drive["state"] in ("missing", "failed") and "hangs" in drive["reason"], drive
            load.compare()
            refused = node.cli("device", "enable", str(victim + 1), check=False)
            assert refused.returncode != 0 and "hangs" in refused.stderr, refused.stderr
            assert node.stop() == 0  # while the directory is as it is
        finally:
            mute.end()
        node.start()
        with Load(node, seed=1) as more:
            more.goes_on(20)
            node.enable(victim)
            more.goes_on()
        expect_used(node, victim)
        load.compare()
        finish(node, more)


def test_a_node_is_started_while_a_drive_hangs():
    needs_mounts()
    all_at_once([("pure kfs", hang_at_the_start, KFS, 0), ("pure dir", hang_at_the_start, DIR, 1), ("a file for a raw drive", hang_at_the_start, MIXED, 0),
                 ("a raw block device", hang_at_the_start, MIXED, 3, True), ("kfs after a crash", hang_at_the_start, MIXED, 1, False, True),
                 ("dir after a crash", hang_at_the_start, MIXED, 2, False, True)] +
                [(f"mute {kinds[i]}", mute_at_the_start, kinds, i) for kinds, i in ((KFS, 1), (MIXED, 4))])


# ---- what is told -----------------------------------------------------------------------------------------------------------------

def test_status_exits_as_bad_as_it_is():
    with FaultyPool(KFS, {}) as node:
        node.create_bucket("bkt")
        for i in range(20):
            node.put("bkt", str(i), random_bytes(300_000, i))

        def told(code, headline, *words):
            said = node.cli("status", check=False)
            metrics = urllib.request.urlopen(node.endpoints["admin"] + "/metrics", timeout=5).read().decode()
            status = json.loads(node.cli("status", "--json", check=False).stdout)
            return (said.returncode == code and headline in said.stdout and all(word in said.stdout for word in words)
                    and f"cluster_health {code}\n" in metrics and status["health"] == headline and bool(status["problems"]) == bool(code))
        node.wait_for(lambda: told(0, "healthy"), 30)
        must("rm", "-rf", node.place(1))
        node.wait_for(lambda: told(1, "degraded", "drive 2", "the most endangered survives the loss of 0 more drives instead of 1"), 30)
        while not run("rm", "-rf", node.place(2))[0]:
            pass
        node.wait_for(lambda: told(2, "unreadable", "cannot be read: too many drives are away"), 30)
        node.kill()
        assert node.cli("status", check=False).returncode == 3


# ---- no descriptors ---------------------------------------------------------------------------------------------------------------

class Starved(FaultyPool):
    """A node that may open few files."""
    prefix = ("prlimit", "--nofile=220:220")


def out_of_descriptors(kinds):
    """Clients and files take all there are. Health, status and SIGTERM are answered, no drive is blamed, and the log stays short."""
    with Starved(kinds, {}) as node:
        node.create_bucket("bkt")
        bodies = {f"{i}": random_bytes(150_000, i) for i in range(150)}
        for key, body in bodies.items():
            node.put("bkt", key, body)
        address = urllib.parse.urlparse(node.endpoints["s3"])
        idle = []
        try:
            for _ in range(400):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex((address.hostname, address.port))
                idle.append(client)
            took = []
            for _ in range(20):
                began = time.time()
                assert ask_health(node) == 200
                took.append(time.time() - began)
                status = node.cli("status", check=False)
                assert status.returncode in (0, 1), status
                assert time.time() - began < 5, "health and status do not answer"
                time.sleep(1)
            assert statistics.median(took) < 1, f"health answers late: {took}"  # single ones may wait for this busy machine
            assert [node.state(i) for i in range(len(kinds))] == ["active"] * len(kinds), node.cli("status", check=False).stdout
            assert len(node.log_text().splitlines()) < 300, node.log_tail()
        finally:
            for client in idle:
                client.close()
        for key, body in bodies.items():
            assert node.get("bkt", key) == body
        node.put("bkt", "more", random_bytes(150_000, 1))
        node.fsck()
        began = time.time()
        assert node.stop() == 0 and time.time() - began < 5


def test_descriptors_run_out():
    all_at_once([(kinds[0], out_of_descriptors, kinds) for kinds in (["raw"] * 3, DIR)])


# ---- no room ----------------------------------------------------------------------------------------------------------------------

def fill_up(disk):
    """Another program that takes all there is."""
    path = os.path.join(disk.path, "somebody-elses")
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    f.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
    return path


def one_full_drive(kinds, victim):
    """Others have room: nobody is refused for long, and the drive stays in use."""
    with FaultyPool(kinds, {victim: Disk(160 << 20)}) as node:
        with Load(node, full=True) as load:
            load.goes_on(40)
            taken = fill_up(node.disks[victim])

            refused_for_good = {}

            def not_refused():  # once it was seen that the drive is full
                load.refused.clear()
                load.goes_on(60)
                refused_for_good.update(load.refused_for_good())
                return sum(load.refused.values()) < 10
            node.wait_for(not_refused)
            assert not refused_for_good, f"clients are told to give up though others have room: {refused_for_good}"
            assert node.state(victim) == "active", f"full is not broken: {node.drive(victim + 1)}"
            os.unlink(taken)
            load.goes_on()
        expect_used(node, victim)
        finish(node, load)


def every_drive_full(kind, root_too=False):
    """Filled by Quarry until it refuses, then by somebody else to the last byte. Reads go on all the time; without a byte left no change can
    be recorded, and as soon as there is room again everything goes on by itself. root_too: the node's own files lie there as well, as on a
    laptop with one disk."""
    disk = Disk(280 << 20)
    pool = FaultyPool([kind] * 3, {i: disk for i in range(3)})
    if root_too:
        pool.root = os.path.join(disk.path, "root")
        os.mkdir(pool.root)
    with pool as node:
        with Load(node, full=True, sizes=[100_000]) as load:
            load.goes_on(40)
            number = 0
            while True:
                status, _, text = node.s3("PUT", f"/bkt/fill/{number}", random_bytes(4_000_000, number))
                if status != 200:
                    break
                number += 1
            assert status == 507, (status, text[:300], node.log_tail())
            assert 5 < number < 100, number
        taken = fill_up(disk)
        time.sleep(2)

        def expect_all(first):
            for i in range(first, number, 5):
                assert node.get("bkt", f"fill/{i}") == random_bytes(4_000_000, i), i
            assert node.s3("GET", "/bkt", query="list-type=2")[0] == 200
        expect_all(0)
        status, _, text = node.s3("PUT", "/bkt/none", bytes(1_000_000))
        assert status in (503, 507), (status, text[:300])
        # A change that needs no room for data still has to be recorded: that works, or is refused within seconds, or its outcome is unknown.
        for _ in range(3):
            began = time.time()
            status, _, text = node.s3("DELETE", "/bkt/fill/0")
            assert status in (204, 500, 503, 507), (status, text[:300])
            assert time.time() - began < 30, "a refusal takes too long"
            if status == 507:
                said = node.cli("status", check=False).stdout
                if node.s3("DELETE", "/bkt/fill/0")[0] == 507:  # still
                    assert "read-only" in said and "the metadata cannot be written" in said, said
        expect_all(5)
        os.unlink(taken)
        node.wait_for(lambda: node.s3("DELETE", "/bkt/fill/0")[0] == 204, 30)
        assert node.s3("GET", "/bkt/fill/0")[0] == 404
        assert "cannot be written" not in node.cli("status", check=False).stdout
        expect_all(1)
        for i in range(number // 2):
            status, _, text = node.s3("DELETE", f"/bkt/fill/{i}")
            assert status == 204, (status, text[:300], node.log_tail())
        node.wait_for(lambda: node.s3("PUT", "/bkt/again", random_bytes(4_000_000, 5))[0] == 200, 30)
        assert node.get("bkt", "again") == random_bytes(4_000_000, 5)
        assert [node.state(i) for i in range(3)] == ["active"] * 3, "full is not broken"
        expect_all(number // 2)
        finish(node, load)


def out_of_inodes(kind):
    """Bytes are left, names are not."""
    with FaultyPool([kind] * 3, {1: Disk(256 << 20, options=("-N", "600"))}) as node:
        with Load(node, full=True, sizes=[5000], keys=10) as load:
            load.goes_on(40)
            disk, taken = node.disks[1], []
            try:
                while True:
                    taken.append(os.path.join(disk.path, f"somebody-elses-{len(taken)}"))
                    open(taken[-1], "w").close()
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
            time.sleep(1.5)
            load.refused.clear()
            load.goes_on(60)
            for path in taken[:-1]:
                os.unlink(path)
            if node.state(1) != "active":
                node.enable(1)
            load.goes_on()
        expect_used(node, 1)
        finish(node, load)


def test_drives_are_full_under_load():
    needs_mounts()
    all_at_once([(f"one of three {kind}", one_full_drive, [kind] * 3, 1) for kind in ("kfs", "dir")] +
                [(f"{MIXED[i]} in a mixed pool", one_full_drive, MIXED, i) for i in (1, 2)] +
                [(f"every {kind}", every_drive_full, kind) for kind in ("kfs", "dir")] +
                [(f"every {kind}, and the root directory", every_drive_full, kind, True) for kind in ("kfs", "dir")] +
                [(f"inodes for {kind}", out_of_inodes, kind) for kind in ("kfs", "dir")])


# ---- gone -------------------------------------------------------------------------------------------------------------------------

def removed(kinds, victim):
    """rm -rf of the directory: the drive is lost, another takes its place."""
    with FaultyPool(kinds, {}) as node:
        with Load(node, clients=16) as load:
            load.goes_on(60)
            while not run("rm", "-rf", node.place(victim))[0]:
                pass  # something was written while it went through
            expect_out_of_use(node, victim, load, ["gone", "No such", "removed", "replaced", "not there"])
            assert not os.path.isdir(node.place(victim)), "what was removed came back by itself"
            node.cli("device", "replace", str(victim + 1), f"{kinds[victim]}:{node.place(victim)}-new")
            load.goes_on(60)
        finish(node, load)


def unmounted(kinds, victim):
    """umount -l: the mount point is an empty directory from one moment to the next, while open files still work."""
    with FaultyPool(kinds, {victim: Disk()}) as node:
        disk = node.disks[victim]
        with Load(node, clients=16) as load:
            load.goes_on(60)
            disk.detach()
            expect_out_of_use(node, victim, load, ["gone", "No such", "removed", "replaced", "not there"])
            assert os.listdir(disk.path) in ([], [".quarry-mountpoint"]), "something was written to the disk below the mount point"
            refused = node.cli("device", "enable", str(victim + 1), check=False)
            assert refused.returncode != 0 and os.listdir(disk.path) in ([], [".quarry-mountpoint"]), refused.stderr
            disk.mount()
            node.enable(victim)
            load.goes_on(60)
        expect_used(node, victim)
        finish(node, load)


def test_directories_are_removed_and_unmounted_under_load():
    needs_mounts()
    all_at_once([(f"rm -rf of {kinds[i]}, {len(set(kinds))} kinds", removed, kinds, i) for kinds, i in ((KFS, 1), (DIR, 1), (MIXED, 1), (MIXED, 2))] +
                [(f"umount -l of {kinds[i]}, {len(set(kinds))} kinds", unmounted, kinds, i) for kinds, i in ((KFS, 1), (DIR, 1), (MIXED, 1), (MIXED, 2))])
