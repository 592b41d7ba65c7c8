"""minio-go's functional tests, each function in a process of its own, since the first failure ends a process."""
import json
import subprocess

from lib import environment
from lib.harness import Skip

CASES_MIN = 90
JOBS = 4


def run(context):
    program = environment.tool("minio-go-cases")
    kinds = dict(reversed(line.split()) for line in subprocess.run([program, "list"], check=True, capture_output=True, text=True).stdout.splitlines())
    url = context.server.client().url
    variables = {"SERVER_ENDPOINT": url.netloc, "ACCESS_KEY": context.server.access_key, "SECRET_KEY": context.server.secret_key,
                 "SERVER_REGION": context.server.region, "ENABLE_HTTPS": "1" if url.scheme == "https" else "0", "MINT_MODE": "full",
                 "MINT_DATA_DIR": ""}  # empty: the tests make their data themselves

    def one(case):
        if kinds[case] == "tls" and url.scheme != "https":
            raise Skip("encryption with client keys wants TLS")
        done = context.run([program, case], timeout=400, variables=variables, check=False, cwd=context.work)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        failures = [line for line in lines if line.get("status") == "FAIL"]
        if failures:
            raise AssertionError(f"{failures[0].get('message')}: {failures[0].get('error', '')} ({failures[0].get('function', '')})")
        if done.returncode != 0:
            raise RuntimeError(done.stdout.strip()[-500:])
        unavailable = [line.get("alert") for line in lines if line.get("status") == "NA"]
        if "Skipped is NotImplemented" in unavailable:
            raise Skip("the test itself skips: it wants a setting we do not give")
        if unavailable:  # the suite forgives that, we do not
            raise AssertionError("the server answered NotImplemented: " + str(unavailable))
        # Several functions return without a word when they find the server not fit for them (no versioning, another kind of server).
        if not any(line.get("status") == "PASS" for line in lines):
            raise Skip("it said neither PASS nor FAIL")

    context.check_all(list(kinds), one, context.options.jobs or JOBS)
    client = context.server.client()
    for bucket in client.buckets():
        if bucket.startswith("minio-go-test"):
            client.remove_bucket(bucket)
