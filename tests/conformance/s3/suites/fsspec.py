"""fsspec's abstract tests over s3fs (aiobotocore), and a few of our own."""
from lib import environment, pytest_cases

CASES_MIN = 135


def run(context):
    pytest_cases.run(context, environment.python("fsspec"), [environment.folder() / "tools/fsspec/test_s3fs.py"],
                     {"BUCKET": context.bucket("fsspec")}, context.work)
