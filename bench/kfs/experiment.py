#!/usr/bin/env python3
"""Repeats the KFS experiment: writes, reads and unlinks of files in 256 buckets, in one LevelDB and as plain files, at growing store sizes.

Writes RESULTS.md (tables) and results.svg (plot) into the folder named by --out. Needs build/release/bench/kfs_bench and python3-matplotlib.
"""
import argparse
import collections
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

STORES = {"kfs": "256 buckets", "one": "one LevelDB", "files": "plain files"}
OPERATIONS = ["write", "read", "unlink"]
MIB = 1 << 20


def size_of(text):
    for unit, factor in (("GiB", 1 << 30), ("MiB", MIB)):
        if text.endswith(unit):
            return int(float(text[:-3]) * factor)
    return int(text)


def run(options, store, streams):
    """All operations of one kind of store, as a list of dictionaries; the store's directory is removed afterwards."""
    directory = tempfile.mkdtemp(prefix="quarry-kfs-bench-", dir=options.directory)
    command = [options.program, store, directory + "/store", "--levels", options.levels, "--sizes", options.sizes, "--budget", options.budget,
               "--streams", str(streams), "--write-buffer", options.write_buffer, "--table", options.table, "--batch", options.batch]
    print("+", " ".join(command), file=sys.stderr, flush=True)
    try:
        with tempfile.TemporaryFile("w+") as out:
            try:
                subprocess.run(command, stdout=out, check=True, timeout=options.limit)
            except subprocess.TimeoutExpired:
                print(f"  stopped after {options.limit} s: what was measured so far counts", file=sys.stderr)
            out.seek(0)
            return [dict(json.loads(line), streams=streams) for line in out if line.endswith("}\n")]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def value_of(row):
    """MiB/s of one stream for writes and reads, milliseconds for unlinks."""
    return row["seconds"] * 1000 if row["operation"] == "unlink" else row["size"] / MIB / row["seconds"]


def mean_of(operation, values):
    """All work over all time: a few slow operations weigh as much as they took. For rates that is the harmonic mean."""
    return statistics.mean(values) if operation == "unlink" else statistics.harmonic_mean(values)


def cell(operation, values):
    if not values:
        return "-"
    mean = mean_of(operation, values)
    spread = statistics.stdev(values) if len(values) > 1 else 0
    digits = 1 if mean < 100 else 0
    return f"{mean:.{digits}f} +- {spread:.{digits}f}"


def better(operation, ours, theirs):
    if not ours or not theirs:
        return None
    a, b = mean_of(operation, ours), mean_of(operation, theirs)
    return b / a if operation == "unlink" else a / b


def gib(size):
    return f"{size / (1 << 30):g} GiB"


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{model}, processors used: {len(os.sched_getaffinity(0))} of {os.cpu_count()}, {memory:.0f} GiB memory, Linux {platform.release()}"


def report(options, rows, seconds):
    groups = collections.defaultdict(list)
    stalls = collections.defaultdict(float)
    counts = collections.Counter()
    for row in rows:
        if row["operation"] == "fill":
            continue
        groups[row["streams"], row["level"], row["size"], row["operation"], row["store"]].append(value_of(row))
        key = row["streams"], row["level"], row["operation"], row["store"]
        stalls[key] = max(stalls[key], row["longest_step"])
        counts[row["store"]] += 1
    levels = sorted({row["level"] for row in rows})
    sizes = sorted({row["size"] for row in rows})
    streams = sorted({row["streams"] for row in rows})
    out = ["# The KFS experiment, repeated", "",
           f"Written by `bench/kfs/experiment.py` on {time.strftime('%Y-%m-%d', time.gmtime())}. Machine: {machine()}; one virtual disk with ext4, shared with other work.",
           f"Took {seconds / 60:.0f} minutes; " + ", ".join(f"{counts[store]} operations on {STORES[store]}" for store in STORES if counts[store]) + " (filling not counted).", "",
           f"Scaled down to the disk at hand: stores of {', '.join(gib(level) for level in levels)} instead of 100 GiB and more, and LevelDB's `write_buffer_size` {options.write_buffer} "
           f"(default 4 MiB) and `max_file_size` {options.table} (default 2 MiB), the same for one LevelDB and for each bucket, so that compaction works as hard as it would in a larger store.",
           "All three are asked for the same: the name is the SHA-256 of the content and is computed while writing, a write is durable when it ends, checksums are verified on reads by kfs and LevelDB (plain files have none).",
           f"What differs: the one LevelDB writes batches of {options.batch} and syncs each, because LevelDB may lose an unsynced batch although a later, synced one survives. kfs writes one batch up to 8 MiB, and for larger files syncs at the end what is still in logs.",
           "An unlink is answered when the file is gone durably; kfs deletes the blocks of files above 16 MiB behind that.",
           "The store fits into the page cache, so reads cost processor time, not disk time. Write and read: MiB/s of one stream (all bytes over all time) +- standard deviation of single operations. Unlink: ms. Ratio: kfs against one LevelDB, above 1 is faster.",
           f"A dash: the store ran into the limit of {options.limit:.0f} s before it came so far. {options.note}", ""]
    for count in streams:
        out += [f"## {count} stream{'s' if count > 1 else ' at a time'}", "", "| store | file | operation | kfs | one LevelDB | plain files | ratio |", "|---|---|---|---|---|---|---|"]
        for level in levels:
            for size in sizes:
                for operation in OPERATIONS:
                    found = {store: groups.get((count, level, size, operation, store), []) for store in STORES}
                    if not any(found.values()):
                        continue
                    ratio = better(operation, found["kfs"], found["one"])
                    out.append(f"| {gib(level)} | {size // MIB} MiB | {operation} | {cell(operation, found['kfs'])} | {cell(operation, found['one'])} | {cell(operation, found['files'])} | "
                               + (f"{ratio:.1f} |" if ratio else "- |"))
        out += ["", "Longest stall, ms (of a 1 MiB step of a write or read, or of an unlink):", "", "| store | operation | kfs | one LevelDB | plain files | kfs / one |", "|---|---|---|---|---|---|"]
        for level in levels:
            for operation in OPERATIONS:
                worst = {store: stalls.get((count, level, operation, store)) for store in STORES}
                if worst["kfs"] is None:
                    continue
                share = f"{worst['kfs'] / worst['one']:.2f}" if worst["one"] else "-"
                out.append(f"| {gib(level)} | {operation} | " + " | ".join(f"{worst[store] * 1000:.0f}" if worst[store] is not None else "-" for store in STORES) + f" | {share} |")
        out.append("")
    out += ["## The claim", "", '"Faster than one LevelDB for every operation and size at the large end, worst stall at most a tenth":', ""]
    for count in streams:
        # The largest store in which both were measured (the slower one may have run into its time limit).
        both = [level for level in levels if all(any(key[0] == count and key[1] == level and key[4] == store for key in groups) for store in ("kfs", "one"))]
        if not both:
            continue
        large = both[-1]
        ratios = [(better(op, groups.get((count, large, size, op, "kfs"), []), groups.get((count, large, size, op, "one"), [])), size, op) for size in sizes for op in OPERATIONS]
        ratios = [r for r in ratios if r[0]]
        slower = [f"{op} of {size // MIB} MiB ({ratio:.2f})" for ratio, size, op in ratios if ratio <= 1]
        worst = {store: max((stalls.get((count, large, op, store), 0) for op in OPERATIONS), default=0) for store in STORES}
        share = worst["kfs"] / worst["one"] if worst["one"] else float("nan")
        out.append(f"- {count} stream(s), {gib(large)}: faster in {len(ratios) - len(slower)} of {len(ratios)} cells" + (f"; not in: {', '.join(slower)}" if slower else "")
                   + f". Worst stall {worst['kfs'] * 1000:.0f} ms against {worst['one'] * 1000:.0f} ms: {share:.2f}" + (" (reached)." if share <= 0.1 else " (the tenth is not reached)."))
    out += ["", "![plot](results.svg)", "", "Repeat it: `./dev bench kfs`."]
    with open(os.path.join(options.out, "RESULTS.md"), "w") as file:
        file.write("\n".join(out) + "\n")
    plot(options, groups, levels, sizes, streams)


def plot(options, groups, levels, sizes, streams):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "quarry", "svg.fonttype": "none"})
    import matplotlib.pyplot as pyplot
    figure, axes = pyplot.subplots(len(streams), 3, figsize=(13, 3.6 * len(streams)), squeeze=False)
    for i, count in enumerate(streams):
        for j, operation in enumerate(OPERATIONS):
            at = axes[i][j]
            for store, color in (("kfs", "tab:blue"), ("one", "tab:red"), ("files", "tab:gray")):
                for size, style in ((sizes[0], "-"), (sizes[-1], "--")):
                    points = [(level / (1 << 30), groups[count, level, size, operation, store]) for level in levels if groups.get((count, level, size, operation, store))]
                    if points:
                        at.errorbar([x for x, _ in points], [mean_of(operation, v) for _, v in points], yerr=[statistics.stdev(v) if len(v) > 1 else 0 for _, v in points],
                                    color=color, linestyle=style, marker="o", capsize=3, label=f"{STORES[store]}, {size // MIB} MiB")
            at.set_yscale("log")
            at.set_title(f"{operation}, {count} stream{'s' if count > 1 else ''}")
            at.set_xlabel("store size, GiB")
            at.set_ylabel("ms" if operation == "unlink" else "MiB/s of one stream")
            at.grid(True, alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(os.path.join(options.out, "results.svg"), metadata={"Date": None})


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=os.path.join(here, "../../build/release/bench/kfs_bench"))
    parser.add_argument("--directory", default="/var/tmp", help="where the stores are made")
    parser.add_argument("--levels", default="1GiB,4GiB,8GiB")
    parser.add_argument("--sizes", default="8MiB,32MiB,128MiB,512MiB")
    parser.add_argument("--budget", default="192MiB", help="bytes written at each size and level, but at least four files")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--write-buffer", default="1MiB")
    parser.add_argument("--table", default="512KiB")
    parser.add_argument("--batch", default="8MiB", help="synced batches of the one LevelDB")
    parser.add_argument("--limit", type=float, default=280, help="seconds for one kind of store")
    parser.add_argument("--out", default=here)
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for the report")
    parser.add_argument("--raw", help="keep the measurements in this file (one JSON line each)")
    parser.add_argument("--from-raw", help="only write the report, from such a file")
    options = parser.parse_args()
    started = time.time()
    if options.from_raw:
        rows = [json.loads(line) for line in open(options.from_raw)]
        seconds = max((row.get("elapsed", 0) for row in rows), default=0)
    else:
        rows = []
        for streams in (int(text) for text in options.streams.split(",")):
            for store in STORES:
                rows += run(options, store, streams)
        seconds = time.time() - started
        if options.raw:
            with open(options.raw, "w") as file:
                for row in rows:
                    file.write(json.dumps(dict(row, elapsed=seconds)) + "\n")
    report(options, rows, seconds)


if __name__ == "__main__":
    main()
