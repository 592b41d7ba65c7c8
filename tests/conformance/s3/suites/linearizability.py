"""Concurrent conditional put, get, delete and list on a few keys, the history checked by Porcupine; with --kill also through crashes."""
import random
import re
import threading
import time

from lib import environment
from lib.harness import FAILED, PASSED, Skip
from lib.s3 import S3Error

CASES_MIN = 25


def run(context):
    program = environment.tool("linearizability")
    self_test(context, program)
    deletes = conditional_delete_works(context)

    def drive(case, versioned=False, kills=0, seconds=None):
        if context.wants(case):
            context.check(case, lambda: one_run(context, program, case, deletes, versioned, kills, seconds or context.options.seconds))

    if context.wants("conditional_delete"):
        context.report("conditional_delete", PASSED if deletes else FAILED, "" if deletes else "DELETE ignores If-Match; the runs go on without it")
    drive("unversioned")
    drive("versioned", versioned=True)
    if context.options.kill:
        drive("kill", kills=8, seconds=max(30, context.options.seconds))
        drive("kill_versioned", versioned=True, kills=8, seconds=max(30, context.options.seconds))


def self_test(context, program):
    """The checker must reject the histories that are known to be bad."""
    for line in context.run([program, "self-test"], timeout=1200, check=False).stdout.splitlines():
        verdict, _, name = line.partition(" ")
        if context.wants("self_test." + name.replace(" ", "_")):
            context.report("self_test." + name, PASSED if verdict == "PASS" else FAILED, line)


def conditional_delete_works(context):
    client, bucket = context.server.client(), context.bucket("delete-if")
    client.request("PUT", f"/{bucket}/k", body=b"x")
    try:
        client.request("DELETE", f"/{bucket}/k", headers={"If-Match": '"00000000000000000000000000000000"'})
    except S3Error as e:
        if e.status != 412:
            return False
    else:
        return False
    client.request("GET", f"/{bucket}/k")
    return True


def one_run(context, program, case, deletes, versioned, kills, seconds):
    server = context.server
    if kills and not server.owned:
        raise Skip("only a node that this harness started can be killed")
    bucket = context.bucket("linear")
    if versioned:
        server.client().set_versioning(bucket)
    history = context.results_path.with_name(f"linearizability-{case}.json")
    history.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "run", "-endpoint", server.endpoint, "-access", server.access_key, "-secret", server.secret_key, "-region", server.region,
               "-bucket", bucket, "-duration", f"{seconds}s", "-operations", str(2000 * seconds), f"-conditional-delete={str(deletes).lower()}", "-history", history]
    if kills:
        command += ["-clients", "24", "-keys", "10"]  # more at work when the node dies; more keys keep the check short
    if context.options.seed:
        command += ["-seed", str(context.options.seed)]
    killer = Killer(server, kills, seconds)
    killer.start()
    try:
        done = context.run(command, timeout=seconds + 600, check=False)
    finally:
        killer.finish()
    words = re.findall(r"^\d+ operations on.*$", done.stdout, re.M)
    violations = re.findall(r"^VIOLATION.*$", done.stdout, re.M)
    context.note(f"{case}: {words[0] if words else 'no verdict'}" + (f"; killed {killer.done} times" if kills else ""))
    if killer.problem:
        raise RuntimeError(f"after a kill: {killer.problem}")
    if done.returncode != 0:
        raise AssertionError("; ".join(violations[:3] + words) or done.stdout.strip()[-500:])
    if kills and killer.done < 2:
        raise RuntimeError(f"only {killer.done} of {kills} kills took place")


class Killer(threading.Thread):
    """Kills and restarts the node at random moments, spread over the run; its own check must find nothing after each."""

    def __init__(self, server, kills, seconds):
        super().__init__(daemon=True)
        self.server, self.kills, self.until = server, kills, time.monotonic() + seconds
        self.pause = seconds / (kills + 1)
        self.done, self.problem, self.stopping = 0, None, threading.Event()

    def run(self):
        while self.done < self.kills and not self.stopping.wait(random.uniform(0.5, 1.2) * self.pause) and time.monotonic() < self.until:
            try:
                self.server.kill()
                if self.done % 2 == 0:
                    self.server.check()  # stopped, as the crash left it
                self.server.start()
                if self.done % 2 == 1:
                    self.server.check()  # running, under load
                self.done += 1
            except Exception as e:
                self.problem = e
                return

    def finish(self):
        self.stopping.set()
        self.join()
