"""The integration tests of the Rust crate object_store, each over an empty bucket of its own."""
import subprocess

from lib import environment
from lib.harness import tail

CASES_MIN = 20


def run(context):
    program = environment.tool("object-store-cases")
    names = subprocess.run([program, "list"], check=True, capture_output=True, text=True).stdout.split()

    def one(case):
        variables = {"BUCKET": context.bucket("object-store"), "RUST_BACKTRACE": "0"}
        done = context.run([program, case], timeout=180, variables=variables, check=False, cwd=context.work)
        if done.returncode != 0:
            raise AssertionError(tail(done.stdout, 500))

    context.check_all(names, one, context.options.jobs or 4)
