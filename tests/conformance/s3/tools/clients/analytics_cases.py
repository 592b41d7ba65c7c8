"""pyarrow's S3 file system and DuckDB's httpfs over parquet files. Prints one JSON line a case; BUCKET is an empty bucket."""
import glob
import json
import os
import sys
import time
import urllib.parse

import duckdb
import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

BUCKET = os.environ["BUCKET"]
URL = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
fs = pyarrow.fs.S3FileSystem(access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"], region=os.environ["AWS_REGION"],
                             endpoint_override=URL.netloc, scheme=URL.scheme, allow_bucket_creation=True, allow_bucket_deletion=True)
ROWS = 300_000


def table():
    return pyarrow.table({"id": pyarrow.array(range(ROWS)), "part": pyarrow.array([n % 5 for n in range(ROWS)]),
                          "text": pyarrow.array([f"row {n * 7919 % 100_003}" for n in range(ROWS)])})


def pyarrow_parquet_round_trip():
    pyarrow.parquet.write_table(table(), f"{BUCKET}/arrow/one.parquet", filesystem=fs, row_group_size=50_000)
    assert pyarrow.parquet.read_table(f"{BUCKET}/arrow/one.parquet", filesystem=fs).equals(table())
    ids = pyarrow.parquet.read_table(f"{BUCKET}/arrow/one.parquet", filesystem=fs, columns=["id"], filters=[("id", ">=", ROWS - 10)])
    assert ids["id"].to_pylist() == list(range(ROWS - 10, ROWS))


def pyarrow_partitioned_dataset():
    pyarrow.dataset.write_dataset(table(), f"{BUCKET}/arrow/parts", format="parquet", partitioning=["part"], filesystem=fs)
    dataset = pyarrow.dataset.dataset(f"{BUCKET}/arrow/parts", format="parquet", partitioning=["part"], filesystem=fs)
    assert dataset.count_rows() == ROWS
    assert dataset.to_table().sort_by("id").select(["id", "text"]).equals(table().select(["id", "text"]))
    assert dataset.to_table(filter=pyarrow.dataset.field("part") == 3).num_rows == ROWS // 5


def pyarrow_files():
    data = os.urandom(17 << 20)  # more than one part
    with fs.open_output_stream(f"{BUCKET}/arrow/raw.bin") as out:
        out.write(data)
    with fs.open_input_file(f"{BUCKET}/arrow/raw.bin") as f:
        assert f.size() == len(data) and f.read_at(1000, 9 << 20) == data[9 << 20:(9 << 20) + 1000] and f.read() == data
    fs.copy_file(f"{BUCKET}/arrow/raw.bin", f"{BUCKET}/arrow/copy.bin")
    info = {i.base_name: i.size for i in fs.get_file_info(pyarrow.fs.FileSelector(f"{BUCKET}/arrow"))}
    assert info["raw.bin"] == info["copy.bin"] == len(data) and "parts" in info, info
    fs.delete_dir_contents(f"{BUCKET}/arrow")
    assert fs.get_file_info(pyarrow.fs.FileSelector(f"{BUCKET}/arrow", recursive=True, allow_not_found=True)) == []


def duckdb_glob_over_parquet():
    import duckdb_extension_httpfs
    [extension] = glob.glob(os.path.join(os.path.dirname(duckdb_extension_httpfs.__file__), "**", "httpfs.duckdb_extension*"), recursive=True)
    if extension.endswith(".gz"):
        raise AssertionError("the extension comes packed now: unpack it here")
    db = duckdb.connect(config={"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"})
    db.execute(f"LOAD '{extension}'")
    db.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}',
                   REGION '{os.environ["AWS_REGION"]}', ENDPOINT '{URL.netloc}', URL_STYLE 'path', USE_SSL {str(URL.scheme == "https").lower()})""")
    for part in range(6):
        db.execute(f"COPY (SELECT i AS id, i % 7 AS k, 'v' || i AS v FROM range({part}0000, {part + 1}0000) t(i)) "
                   f"TO 's3://{BUCKET}/duck/p={part}/data.parquet' (FORMAT parquet)")
    count, total = db.execute(f"SELECT count(*), sum(id) FROM read_parquet('s3://{BUCKET}/duck/*/*.parquet')").fetchone()
    assert (count, total) == (60_000, sum(range(60_000))), (count, total)
    got = db.execute(f"SELECT v FROM read_parquet('s3://{BUCKET}/duck/**/*.parquet', hive_partitioning=true) WHERE p = 4 AND id = 43210").fetchall()
    assert got == [("v43210",)], got
    db.execute(f"COPY (SELECT i, repeat('x', 200) || i AS s FROM range(400000) t(i)) TO 's3://{BUCKET}/duck/large.csv' (HEADER)")
    assert db.execute(f"SELECT count(*), max(i) FROM read_csv('s3://{BUCKET}/duck/large.csv')").fetchone() == (400_000, 399_999)


CASES = [pyarrow_parquet_round_trip, pyarrow_partitioned_dataset, pyarrow_files, duckdb_glob_over_parquet]

if __name__ == "__main__":
    for case in CASES:
        start, message = time.monotonic(), ""
        try:
            case()
        except Exception as e:
            message = f"{type(e).__name__}: {e}"
        print(json.dumps({"case": case.__name__, "message": message, "seconds": time.monotonic() - start}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the C++ SDK's own shutdown is of no interest
