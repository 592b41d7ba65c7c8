"""What every suite uses: its options, a place to work, buckets that are removed again, and the report of its cases."""
import concurrent.futures
import fnmatch
import pathlib
import re
import secrets
import subprocess
import sys
import threading
import time

from lib import environment

PASSED, FAILED, SKIPPED, LATER = "passed", "failed", "skipped", "later"  # later: fails, and its issue is a later one


class Context:
    """One run of one suite against one server. Thread-safe: report, bucket, run."""

    def __init__(self, suite, server, options, results_path):
        self.suite, self.server, self.options, self.results_path = suite, server, options, results_path
        self.work = environment.scratch(f"conformance-{suite}-", options.root)
        self.results = {}  # case -> (status, seconds, message)
        self.previous = read_results(results_path)
        self.notes = []    # lines for the end
        self._lock = threading.Lock()
        self._buckets = []
        self.token = secrets.token_hex(3)

    # --- which cases ---

    def wants(self, case):
        if self.options.filter and not re.search(self.options.filter, case):
            return False
        if self.options.only_failed:
            return self.previous.get(case, (None,))[0] == FAILED
        return True

    def partial(self):
        return bool(self.options.filter or self.options.only_failed)

    # --- report ---

    def report(self, case, status, message="", seconds=0.0):
        case = re.sub(r"\s+", "_", case)
        message = re.sub(r"\s+", " ", str(message)).strip()
        with self._lock:
            if case in self.results:  # a suite that names two cases alike must not hide one
                case = next(f"{case}#{n}" for n in range(2, 10000) if f"{case}#{n}" not in self.results)
            self.results[case] = (status, seconds, message)
            if status == FAILED or self.options.verbose:
                print(f"  {status.upper():7} {case}  {message[:self.options.width]}", flush=True)

    def note(self, text):
        self.notes.append(text)

    def check(self, case, action):
        """Runs action(); the case fails with its exception, else passes. Returns whether it passed."""
        start = time.monotonic()
        try:
            action()
        except Skip as e:
            self.report(case, SKIPPED, e, time.monotonic() - start)
            return False
        except Exception as e:  # whatever a client does wrong is a failed case
            self.report(case, FAILED, f"{type(e).__name__}: {e}", time.monotonic() - start)
            return False
        self.report(case, PASSED, "", time.monotonic() - start)
        return True

    def check_all(self, cases, action, jobs):
        """action(case) for each wanted case, `jobs` at a time."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda case: self.check(case, lambda: action(case)), [c for c in cases if self.wants(c)]))

    # --- places and programs ---

    def bucket(self, purpose):
        name = f"{purpose}-{self.token}-{secrets.token_hex(2)}".replace("_", "-").lower()[:60]
        self.server.client().create_bucket(name)
        self._buckets.append(name)
        return name

    def folder(self, name):
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def aws_variables(self):
        s = self.server
        return {"AWS_ENDPOINT_URL": s.endpoint, "AWS_ACCESS_KEY_ID": s.access_key, "AWS_SECRET_ACCESS_KEY": s.secret_key,
                "AWS_REGION": s.region, "AWS_DEFAULT_REGION": s.region, "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}

    def run(self, command, timeout=300, variables=None, check=True, **options):
        """Runs a program with the server's address and keys in its environment; fails with the end of its output."""
        env = {**environment.clean(), **self.aws_variables(), **(variables or {})}
        done = subprocess.run([str(c) for c in command], env=env, timeout=timeout, text=True, stdout=subprocess.PIPE,
                              stderr=options.pop("stderr", subprocess.STDOUT), **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{pathlib.Path(str(command[0])).name} ended with {done.returncode}: {tail(done.stdout)}")
        return done

    def clean_up(self):
        client = self.server.client()
        for bucket in self._buckets:
            client.remove_bucket(bucket)


class Skip(Exception):
    pass


def tail(text, characters=700):
    return text.strip()[-characters:]


def count(results, status):
    return sum(1 for r in results.values() if r[0] == status)


# --- files ------------------------------------------------------------------------------------------------------------------------


def read_results(path):
    if not path.exists():
        return {}
    rows = (line.rstrip("\n").split("\t") for line in open(path))
    return {case: (status, float(seconds), message) for case, status, seconds, message in rows}


def write_results(path, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as out:
        for case, (status, seconds, message) in sorted(results.items()):
            out.write(f"{case}\t{status}\t{seconds:.2f}\t{message}\n")


class Expectations:
    """not_passed.txt: `suite case-pattern  # reason` a line."""

    def __init__(self, path, suite):
        self.patterns = {}
        for number, line in enumerate(open(path), 1):
            entry, _, reason = line.partition("#")
            words = entry.split()
            if not words:
                continue
            if len(words) != 2 or not reason.strip():
                sys.exit(f"{path}:{number}: want `suite case  # reason`")
            if words[0] == suite:
                self.patterns[words[1]] = reason.strip()

    def reason(self, case):
        return next((why for pattern, why in self.patterns.items() if fnmatch.fnmatchcase(case, pattern)), None)

    def unused(self, results):
        """Patterns that no case failed for."""
        return [p for p in self.patterns if not any(r[0] == FAILED and fnmatch.fnmatchcase(c, p) for c, r in results.items())]
