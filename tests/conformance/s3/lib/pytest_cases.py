"""Runs pytest and reports its cases from the JUnit file it writes."""
import collections
import xml.etree.ElementTree as ElementTree

from lib.harness import FAILED, PASSED, SKIPPED, tail


def run(context, python, arguments, variables, cwd, timeout=1200):
    """Reports each test as `module.Class.test`. A test's set-up or tear-down error counts as its failure."""
    junit = context.work / "junit.xml"
    done = context.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={junit}", *arguments],
                       timeout=timeout, variables={"PYTHONDONTWRITEBYTECODE": "1", **variables}, check=False, cwd=cwd)
    if not junit.exists():
        raise RuntimeError(f"pytest left no report: {tail(done.stdout)}")
    outcomes = collections.OrderedDict()
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname').split('.', 1)[-1] if '.' in case.get('classname') else case.get('classname')}.{case.get('name')}"
        status, message = PASSED, ""
        for child in case:
            if child.tag in ("failure", "error"):
                status, message = FAILED, child.get("message") or child.text or ""
            elif child.tag == "skipped" and status == PASSED:
                status, message = SKIPPED, child.get("message") or ""
        before = outcomes.get(name, (PASSED, 0, ""))
        if before[0] != FAILED:
            outcomes[name] = (status, float(case.get("time") or 0), message)
    for name, (status, seconds, message) in outcomes.items():
        if context.wants(name):
            context.report(name, status, message, seconds)
