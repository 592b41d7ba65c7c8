"""versitygw's full-flow suite, every case of its own: several at a time, in processes that a panic may end.

`versitygw_scope.txt` says which cases belong to the core that Quarry serves now, and why the others do not.
"""
import fnmatch
import json
import os
import re
import subprocess
import sys
import threading
import time

from lib import environment
from lib.harness import FAILED, LATER, PASSED, SKIPPED, count

CASES_MIN = 440
WORKERS = min(8, 2 * len(os.sched_getaffinity(0)))  # each request of a case has 30 s, however slow the machine


def run(context):
    program = environment.tool("versitygw-cases")
    cases = [json.loads(line) for line in subprocess.run([program, "list"], check=True, capture_output=True, text=True).stdout.splitlines()]
    scope = Scope(environment.folder() / "versitygw_scope.txt", cases)
    chosen = [c for c in cases if context.wants(c["case"]) and (context.options.scope == "all" or not scope.later(c["case"]))]
    runner = Runner(context, program, scope)
    runner.run_all([c["case"] for c in chosen if not c["alone"]], context.options.jobs or WORKERS)
    # These look at the whole server (all buckets), or are large.
    runner.remove_buckets()
    for case in (c["case"] for c in chosen if c["alone"]):
        runner.run_all([case], 1)
        if context.results[case][0] != PASSED:
            runner.remove_buckets()
    context.note(scope.line(context.results, len(cases)))


class Scope:
    def __init__(self, path, cases):
        self.rules = []  # (pattern, reason or None for core), the last that matches decides
        for number, line in enumerate(open(path), 1):
            entry, _, reason = line.partition("#")
            words = entry.split()
            if not words:
                continue
            if len(words) != 2 or words[0] not in ("core", "later") or (words[0] == "later" and not reason.strip()):
                sys.exit(f"{path}:{number}: want `core PATTERN` or `later PATTERN  # reason`")
            self.rules.append((words[1], None if words[0] == "core" else reason.strip()))
            if not any(self.matches(words[1], c) for c in cases):
                sys.exit(f"{path}:{number}: no case matches {words[1]}")
        self.reasons = {}
        for c in cases:
            decided = [reason for pattern, reason in self.rules if self.matches(pattern, c)]
            self.reasons[c["case"]] = decided[-1] if decided else None

    @staticmethod
    def matches(pattern, case):
        """`Group/` names all cases of a group, everything else is a pattern of case names."""
        return case["group"] == pattern[:-1] if pattern.endswith("/") else fnmatch.fnmatchcase(case["case"], pattern)

    def later(self, case):
        return self.reasons[case]

    def line(self, results, total):
        core = {c: r for c, r in results.items() if not self.later(c)}
        passed = count(core, PASSED)
        share = f" ({100 * passed / len(core):.1f} %)" if core else ""
        later = len(results) - len(core)
        text = f"core: {passed} of {len(core)} passed{share}"
        if later:
            text += f"; later issues: {count(results, PASSED) - passed} of {later} passed"
        return text + f"; the suite has {total} cases, {sum(1 for r in self.reasons.values() if r is None)} of them core"


class Runner:
    def __init__(self, context, program, scope):
        self.context, self.program, self.scope = context, program, scope
        self.work = context.folder("cwd")
        self.first_bucket = int(time.time()) % 10_000_000 * 100_000
        self.place_admin_tool()

    def place_admin_tool(self):
        """Cases that want a second user run `./versitygw admin ...`, versitygw's own interface; ours translates for other servers."""
        server, path = self.context.server, self.work / "versitygw"
        if server.name == "versitygw":
            path.symlink_to(environment.tool("versitygw"))
            return
        state = {"name": server.name, "endpoint": server.endpoint, "access_key": server.access_key, "secret_key": server.secret_key,
                 "root": str(getattr(server, "root", "")), "binary": str(getattr(server, "binary", ""))}
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.dont_write_bytecode = True\nsys.path.insert(0, {str(environment.folder())!r})\n"
                        f"from lib.versitygw_admin import main\nmain({state!r}, sys.argv[1:])\n")
        path.chmod(0o755)

    def run_all(self, names, workers):
        """Runs in one process; when a panic ends it, the cases that were under way run again one by one, then the rest goes on."""
        rest = list(names)
        while rest:
            begun, ended, _ = self.batch(rest, workers)
            for name in begun - ended:
                if workers == 1:
                    self.report_panic(name)
                else:
                    _, finished, error = self.batch([name], 1)
                    if name not in finished:
                        self.report_panic(name, error)
            if not begun and rest:
                raise RuntimeError("versitygw-cases ran nothing: " + self.last_error)
            rest = [name for name in rest if name not in begun]
        # What failed among others runs once more alone: the message then says whether company mattered.
        if workers > 1:
            for name in [n for n in names if self.context.results.get(n, ("",))[0] in (FAILED, LATER)][:40]:
                self.retry_alone(name)

    def retry_alone(self, name):
        before = self.context.results.pop(name)
        quiet = _Quiet(self.context)
        _, ended, _ = self.batch([name], 1, quiet)
        passed_alone = quiet.status == PASSED and name in ended
        self.context.results[name] = (before[0], before[1], ("passes alone, failed among others: " if passed_alone else "") + before[2])
        if passed_alone:
            self.context.note(f"{name} failed among others and passed alone: look for a race or a time limit")

    def report_panic(self, name, error=""):
        self.report(self.context, {"case": name, "message": "the suite panicked: " + (error or self.last_error), "seconds": 0})

    def batch(self, names, workers, context=None):
        """One process. Returns the cases begun, those ended, and its error output."""
        context = context or self.context
        server = self.context.server
        self.first_bucket += 10_000
        command = [self.program, "run", "-endpoint", server.endpoint, "-access", server.access_key, "-secret", server.secret_key,
                   "-region", server.region, "-workers", str(workers), "-first-bucket", str(self.first_bucket)]
        process = subprocess.Popen(command, cwd=self.work, env=environment.clean(), text=True, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        error_lines = []
        reader = threading.Thread(target=lambda: error_lines.extend(process.stderr))
        reader.start()
        writer = threading.Thread(target=feed, args=(process.stdin, names))
        writer.start()
        begun, ended = set(), set()
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "begin":
                begun.add(event["case"])
            else:
                ended.add(event["case"])
                self.report(context, event)
        process.wait()
        reader.join()
        writer.join()
        panic = [line.strip() for line in error_lines if line.startswith(("panic:", "fatal error:")) or "tests/integration/" in line]
        self.last_error = " ".join(panic[:2] or [line.strip() for line in error_lines[-3:]])
        return begun, ended, self.last_error

    def report(self, context, event):
        name, status = event["case"], PASSED if event.get("passed") else SKIPPED if event.get("skipped") else FAILED
        message = event.get("message", "")
        if reason := self.scope.later(name):
            if status == FAILED:
                status, message = LATER, f"[{reason}] {message}"
        context.report(name, status, message.removeprefix(f"{name}: "), event.get("seconds", 0))

    def remove_buckets(self):
        """Failed cases leave their buckets; only ours are touched."""
        client = self.context.server.client()
        for bucket in client.buckets():
            if re.match(r"(my-prefix-)?test-bucket-\d+", bucket):
                client.remove_bucket(bucket)


class _Quiet:
    def __init__(self, context):
        self.results, self.status = {}, None

    def report(self, case, status, message="", seconds=0):
        self.status = status


def feed(stream, names):
    try:
        for name in names:
            stream.write(name + "\n")
        stream.close()
    except BrokenPipeError:
        pass  # the process ended early; the reader of its output notices
