"""fsspec's abstract tests of put, get and copy, and some of s3fs's own ways, over a bucket of the server in AWS_*."""
import os
import secrets

import pytest
import s3fs
from fsspec.tests import abstract


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture(scope="class")
    def fs(self):
        filesystem = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], key=os.environ["AWS_ACCESS_KEY_ID"],
                                       secret=os.environ["AWS_SECRET_ACCESS_KEY"], use_listings_cache=False,
                                       client_kwargs={"region_name": os.environ["AWS_REGION"]})
        filesystem.invalidate_cache()
        yield filesystem

    @pytest.fixture
    def fs_path(self):
        return os.environ["BUCKET"]

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestFiles(Fixtures):
    """What data programs do through s3fs: large files in parts, seeks, globs, appends, removal of trees."""

    def test_large_file_and_ranges(self, fs, fs_path):
        data = secrets.token_bytes(23 << 20)
        path = f"{fs_path}/large.bin"
        with fs.open(path, "wb", block_size=5 << 20) as f:
            f.write(data)
        assert fs.info(path)["size"] == len(data)
        with fs.open(path, "rb", block_size=1 << 20) as f:
            for offset, size in ((0, 10), (5 << 20, 3), ((5 << 20) - 7, 14), (len(data) - 5, 5), (11 << 20, 2 << 20)):
                f.seek(offset)
                assert f.read(size) == data[offset:offset + size]
        assert fs.cat_file(path, start=-9) == data[-9:]
        fs.rm(path)
        assert not fs.exists(path)

    def test_append_copies_the_start(self, fs, fs_path):
        path = f"{fs_path}/append.bin"
        first, second = secrets.token_bytes(6 << 20), secrets.token_bytes(1 << 20)
        fs.pipe(path, first)
        with fs.open(path, "ab") as f:
            f.write(second)
        assert fs.cat(path) == first + second
        fs.rm(path)

    def test_find_glob_and_remove_tree(self, fs, fs_path):
        names = [f"tree/{a}/{b}.txt" for a in ("x", "y z", "ü") for b in range(7)]
        fs.pipe({f"{fs_path}/{n}": n.encode() for n in names})
        assert sorted(fs.find(f"{fs_path}/tree")) == sorted(f"{fs_path}/{n}" for n in names)
        assert len(fs.glob(f"{fs_path}/tree/*/3.txt")) == 3
        assert {k.removeprefix(fs_path + "/"): v for k, v in fs.cat(fs.find(f"{fs_path}/tree")).items()} == {n: n.encode() for n in names}
        fs.rm(f"{fs_path}/tree", recursive=True)
        assert fs.find(f"{fs_path}/tree") == []

    def test_exclusive_creation(self, fs, fs_path):
        path = f"{fs_path}/exclusive"
        fs.pipe_file(path, b"one", mode="create")
        with pytest.raises(OSError, match="pre-condition|exists"):
            fs.pipe_file(path, b"two", mode="create")
        assert fs.cat(path) == b"one"
        fs.rm(path)
