"""Starts that go wrong: killed in the first second, drives that are blank, absent, doubled, unmounted or back; and what the messages say to type."""
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time

from cases_drive_kinds import Pool, write_tree
from faults import Disk, needs_mounts
from node import BINARY, Node, Skip, free_port, random_bytes

HINT = re.compile(r"`(quarry [^`]*|mount [^`]*|rm [^`]*)`")


def hints(*texts):
    return [h for text in texts for h in HINT.findall(text)]


def type_in(hint, **places):
    """A hint, typed as it is printed; places: what people put where the message says NEW."""
    words = [places.get(w, w) for w in shlex.split(hint)]
    if words[0] == "quarry":
        words[0] = BINARY
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def drives_of(node):
    return {d["number"]: d for d in node.admin("GET", "/v1/status")["drives"]}


def killed_in_its_first_second(pool, rounds):
    rng = random.Random(7)
    with_key = 0
    with pool as node:
        node.kill()
        for _ in range(rounds):
            for folder in (node.root, getattr(node, "home", None)):
                if folder:
                    for name in os.listdir(folder):
                        path = os.path.join(folder, name)
                        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            if isinstance(node, Pool):
                for i, kind in enumerate(node.kinds):
                    node.make(kind, i)
            for _ in range(rng.randrange(1, 3)):
                node.start(wait=False)
                time.sleep(rng.uniform(0.0, 1.2))
                with_key += os.path.exists(os.path.join(node.root, "endpoints.json"))
                node.kill()
            node.start()
            node.create_bucket("bkt")
            node.put("bkt", "key", b"value")
            assert node.get("bkt", "key") == b"value"
            assert all(d["state"] == "active" for d in drives_of(node).values()), drives_of(node)
            node.fsck()
            node.kill()
    print(f"   {rounds} rounds, {with_key} kills came after the store was ready", flush=True)


def test_a_node_killed_in_its_first_second_starts_again():
    killed_in_its_first_second(Node("--drives", "4", "--drive-size", "128MiB"), 12)


def test_a_node_of_directories_killed_in_its_first_second_starts_again():
    killed_in_its_first_second(Pool(["dir", "dir", "dir"]), 8)
    killed_in_its_first_second(Pool(["kfs", "kfs", "kfs"]), 8)
    killed_in_its_first_second(Pool(["raw", "kfs", "dir"]), 6)


def blank(path):
    if os.path.isdir(path):
        for name in os.listdir(path):
            inside = os.path.join(path, name)
            shutil.rmtree(inside) if os.path.isdir(inside) else os.unlink(inside)
    else:
        size = os.path.getsize(path)
        os.truncate(path, 0)
        os.truncate(path, size)


def test_an_emptied_drive_in_its_slot_starts_the_node_degraded_and_is_filled_again():
    for kind in ("raw", "kfs", "dir"):
        with Pool([kind] * 3, "--profile", "mirror:2") as node:
            node.create_bucket("bkt")
            objects = {f"k{i}": random_bytes(200_000, i) for i in range(20)}
            for key, body in objects.items():
                node.put("bkt", key, body)
            assert node.stop() == 0
            blank(os.path.join(node.home, f"{kind}-1"))
            for lost in (False, True):
                if lost:  # the root, too
                    shutil.rmtree(node.root)
                    os.mkdir(node.root)
                node.start()
                away = [d for d in drives_of(node).values() if d["state"] == "missing"]
                assert len(away) == 1 and "carries no drive" in away[0]["reason"], drives_of(node)
                for key, body in objects.items():
                    assert node.get("bkt", key) == body
                if not lost:
                    assert node.stop() == 0
            shown = node.cli("status").stdout
            hint = next(h for h in hints(shown) if "replace" in h)
            done = type_in(hint, NEW=away[0]["path"])
            assert done.returncode == 0, (hint, done)
            node.wait_for(lambda: node.admin("GET", "/v1/status")["health"] == "healthy")
            node.fsck()


def test_one_drive_under_two_names_is_one_drive():
    with Pool(["raw", "dir", "kfs"]) as node:
        names = [os.path.join(node.home, f"{k}-{i}") for i, k in enumerate(node.kinds)]
        assert node.stop() == 0
        for i, (kind, path) in enumerate(zip(node.kinds, names)):
            link = os.path.join(node.home, f"also-{i}")
            os.symlink(path, link)
            node.args += ["--device", link if kind == "raw" else f"{kind}:{link}"]
        node.start()
        assert [d["state"] for d in drives_of(node).values()] == ["active"] * 3, drives_of(node)
        assert node.stop() == 0
        # Only the new names, and a drive that came under yet another one.
        os.rename(names[0], names[0] + ".moved")
        os.unlink(os.path.join(node.home, "also-0"))
        node.args = ["--device", f"dir:{node.home}/also-1", "--device", f"kfs:{node.home}/also-2", "--device", names[0] + ".moved"]
        node.start()
        assert [d["state"] for d in drives_of(node).values()] == ["active"] * 3, drives_of(node)


def test_a_drive_that_comes_back_while_the_node_runs_is_taken_back():
    with Pool(["dir", "raw", "kfs", "raw"], "--profile", "mirror:2") as node:
        node.create_bucket("bkt")
        node.put("bkt", "k", random_bytes(300_000, 1))
        assert node.stop() == 0
        for name in ("dir-0", "raw-1"):
            os.rename(os.path.join(node.home, name), os.path.join(node.home, "away-" + name))
            node.start()
            number = next(n for n, d in drives_of(node).items() if d["state"] == "missing")
            if name == "dir-0":  # where it was
                os.rename(os.path.join(node.home, "away-" + name), os.path.join(node.home, name))
            else:  # elsewhere
                done = node.cli("device", "add", os.path.join(node.home, "away-" + name))
            node.wait_for(lambda: drives_of(node)[number]["state"] == "active", 60)
            assert len(drives_of(node)) == 4, drives_of(node)
            node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])
            assert node.stop() == 0
        node.start()
        assert [d["state"] for d in drives_of(node).values()] == ["active"] * 4, drives_of(node)


def test_a_drive_that_was_replaced_while_it_was_away_does_not_come_back_as_new():
    for kind in ("raw", "kfs", "dir"):
        with Pool([kind] * 3, "--profile", "mirror:2") as node:
            node.create_bucket("bkt")
            for i in range(20):
                node.put("bkt", f"old{i}", random_bytes(200_000, i))
            assert node.stop() == 0
            old = os.path.join(node.home, f"{kind}-0")
            os.rename(old, old + ".away")
            node.start()
            number = next(n for n, d in drives_of(node).items() if d["state"] == "missing")
            node.cli("device", "replace", str(number), node.make(kind, 9))
            node.wait_for(lambda: drives_of(node)[number]["state"] == "removed")
            for i in range(20):
                node.s3("DELETE", f"/bkt/old{i}")
            os.rename(old + ".away", old)
            spec = old if kind == "raw" else f"{kind}:{old}"
            before = len(drives_of(node))
            for restart in (False, True):
                if restart:
                    assert node.stop() == 0
                    node.args += ["--device", spec]
                    node.start()
                    shown = node.cli("status", check=False).stdout
                    assert f"is not used: it is drive {number} of this store, which was removed" in shown, shown
                    assert any("device add --force" in h and node.root in h for h in hints(shown)), shown
                said = node.cli("device", "add", spec, check=False)
                assert said.returncode != 0 and "DESTROY" in said.stderr, said
                assert len(drives_of(node)) == before, drives_of(node)
                assert not json.loads(node.s3("GET", "/v1/status", where="admin")[2])["drives"][number - 1]["state"] == "active"
            (hint,) = hints(said.stderr)
            done = type_in(hint)
            assert done.returncode == 0, (hint, done)
            node.wait_for(lambda: sum(d["state"] == "active" for d in drives_of(node).values()) == 4)
            node.wait_for(lambda: node.admin("POST", "/v1/fsck")["sound"])


def up(root, *args):
    return subprocess.run([BINARY, "up", "--root", root, "--s3", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}", *args],
                          capture_output=True, text=True, timeout=120)


def test_nothing_is_made_on_the_bare_directories_of_drives_that_are_not_mounted():
    needs_mounts()
    disks = [Disk(256 << 20) for _ in range(3)]
    try:
        kinds = ["dir", "kfs", "dir"]
        specs = [f"{k}:{d.path}{'/below' if i == 2 else ''}" for i, (k, d) in enumerate(zip(kinds, disks))]
        devices = [a for s in specs for a in ("--device", s)]
        with Node(*devices, "--profile", "mirror:2") as node:
            node.create_bucket("bkt")
            node.put("bkt", "k", b"value")
            assert node.stop() == 0
            for disk in disks:
                disk.unmount()
            for lost in (False, True):  # the root, too
                if lost:
                    shutil.rmtree(node.root)
                    os.mkdir(node.root)
                said = up(node.root, *devices)
                assert said.returncode != 0 and ("not mounted" in said.stderr or "is mounted on" in said.stderr or "none of its drives" in said.stderr), said
                for spec in specs:
                    assert not os.path.exists(os.path.join(spec.split(":")[1], ".quarry")), spec
                    assert not os.path.exists(os.path.join(spec.split(":")[1], "kfs.descriptor")), spec
            for disk in disks[:2]:
                disk.mount()
            node.start()
            assert node.get("bkt", "k") == b"value"
            number, away = next((n, d) for n, d in drives_of(node).items() if d["state"] == "missing")
            assert "mount" in away["reason"], away
            said = node.cli("device", "enable", str(number), check=False)
            assert said.returncode != 0 and "mount" in said.stderr, said
            disks[2].mount()
            Pool.wait_for(node, lambda: drives_of(node)[number]["state"] == "active", 60)
            assert node.get("bkt", "k") == b"value"
            assert node.stop() == 0
    finally:
        for disk in disks:
            subprocess.run(["umount", disk.path], capture_output=True)
            shutil.rmtree(disk.folder, ignore_errors=True)


def test_a_new_file_system_with_lost_and_found_is_a_drive_of_any_kind():
    needs_mounts()
    disks = [Disk(256 << 20) for _ in range(2)]
    try:
        assert os.path.isdir(os.path.join(disks[0].path, "lost+found"))
        with Node("--device", f"kfs:{disks[0].path}", "--device", f"dir:{disks[1].path}") as node:
            node.create_bucket("bkt")
            node.put("bkt", "k", b"value")
            adopted = json.loads(node.cli("adopt", disks[1].path, "found", "--json").stdout)
            assert adopted["skipped"] == 0, adopted
            node.fsck()
            assert node.stop() == 0
            for spec in (f"kfs:{disks[0].path}", f"dir:{disks[1].path}"):
                done = node.tool("device", "fsck", spec)
                assert done.returncode == 0, done
    finally:
        for disk in disks:
            subprocess.run(["umount", disk.path], capture_output=True)
            shutil.rmtree(disk.folder, ignore_errors=True)


def test_what_the_messages_say_to_type_works():
    with Pool(["dir", "dir", "raw", "raw"], "--profile", "mirror:2") as node:
        node.create_bucket("bkt")
        node.put("bkt", "k", b"value")
        # disabled -> enable
        node.cli("device", "disable", "1")
        said = node.cli("device", "add", node.make("dir", 0), check=False)
        if said.returncode != 0:
            assert hints(said.stderr) and type_in(hints(said.stderr)[0]).returncode == 0, said
        node.wait_for(lambda: drives_of(node)[1]["state"] == "active")
        node.cli("device", "disable", "1")
        hint = next(h for h in hints(node.cli("status").stdout) if "enable 1" in h)
        assert type_in(hint).returncode == 0, hint
        assert drives_of(node)[1]["state"] == "active"
        # adopt outside of all drives -> adopt --attach
        data = os.path.join(node.home, "tree")
        write_tree(data, {"a": b"a"})
        said = node.cli("adopt", data, "adopted", check=False)
        (hint,) = hints(said.stderr)
        assert type_in(hint).returncode == 0, hint
        # files that are gone -> adopt --prune
        os.unlink(os.path.join(data, "a"))
        said = node.cli("adopt", data, "adopted")
        (hint,) = hints(said.stdout)
        assert type_in(hint).returncode == 0, hint
        assert node.s3("GET", "/adopted/a")[0] == 404
        # a running node is not told to be started
        said = node.cli("device", "enable", "99", check=False)
        assert said.returncode != 0 and "start it" not in said.stderr, said
        assert node.stop() == 0
        said = node.cli("status", check=False)
        assert f"`quarry up --root {node.root}`" in said.stderr, said
        # too many drives away -> --accept-loss, where that helps
        helped = 0
        for pair in (("dir-0", "dir-1"), ("raw-2", "raw-3"), ("dir-0", "raw-2")):
            paths = [os.path.join(node.home, name) for name in pair]
            for path in paths:
                os.rename(path, path + ".away")
            said = up(node.root)
            assert said.returncode != 0, said
            for hint in hints(said.stderr):
                assert hint.endswith("--accept-loss"), said
            if hints(said.stderr) and helped == 0:
                started = node.start("--accept-loss", wait=False)
                node.wait_for(lambda: started.process.poll() is not None or os.path.exists(os.path.join(node.root, "endpoints.json")))
                helped += started.process.poll() is None
                node.kill()
            for path in paths:
                os.rename(path + ".away", path)
        assert helped, said


def test_a_directory_that_was_moved_comes_back_by_its_identity():
    for kind in ("dir", "kfs"):
        with Pool([kind] * 3, "--profile", "mirror:2") as node:
            node.create_bucket("bkt")
            body = random_bytes(250_000, 1)
            node.put("bkt", "k", body)
            place = os.path.join(node.home, f"{kind}-0")
            os.rename(place, place + "-moved")
            node.wait_for(lambda: drives_of(node)[1]["state"] != "active", 60)
            node.cli("device", "add", f"{kind}:{place}-moved")  # at once: it may be being closed just now
            assert drives_of(node)[1]["state"] == "active" and len(drives_of(node)) == 3, drives_of(node)
            assert node.get("bkt", "k") == body


def test_the_secret_key_is_shown_once_and_by_its_command():
    with Node("--drives", "2", "--drive-size", "128MiB") as node:
        secret = node.endpoints["secret_key"]
        assert node.log_text().count(secret) == 1, "the first start shows it"
        assert node.stop() == 0
        node.start()
        assert node.log_text().count(secret) == 1, "a later one does not"
        (hint,) = hints(node.log_text()[node.log_text().rfind("is ready"):])
        assert secret in type_in(hint).stdout, hint


def test_a_node_lives_inside_the_memory_of_its_control_group():
    # Whoever runs the cases says where a group may be made: the groups of a machine, or of a container, are not ours.
    above = os.environ.get("QUARRY_CGROUP")
    if not above:
        raise Skip("QUARRY_CGROUP names no control group (of memory) that may be used")
    group = os.path.join(above, f"quarry-e2e-{os.getpid()}")
    os.mkdir(group)
    second = os.path.exists(os.path.join(group, "memory.max"))  # version
    with open(os.path.join(group, "memory.max" if second else "memory.limit_in_bytes"), "r+") as f:
        f.write(str(512 << 20))
    try:
        class Limited(Node):
            prefix = ("sh", "-c", f"echo $$ > {group}/cgroup.procs && exec \"$@\"", "sh")

        with Limited("--drives", "4", "--drive-size", "2GiB") as node:
            node.create_bucket("bkt")
            done = node.cli("bench", "put", "--size", "8MiB", "--duration", "10s", "--connections", "32", "--keep")
            assert done.returncode == 0, done
            node.cli("bench", "get", "--size", "8MiB", "--duration", "5s", "--connections", "32", "--no-prepare", check=False)
            assert node.process.poll() is None, "it was killed"
            events = os.path.join(group, "memory.events" if second else "memory.oom_control")
            with open(events) as f:
                assert "oom_kill 0" in f.read()
            assert node.stop() == 0
    finally:
        time.sleep(0.5)
        os.rmdir(group)
