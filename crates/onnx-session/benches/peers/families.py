"""The engine compiled beside ONNX Runtime on base shapes of other families, one after the other.

    cargo bench --no-run --bench compiled                       (in onnx-session; prints the program)
    python models.py FOLDER                                     (once)
    python families.py FOLDER PROGRAM THREADS [ROUNDS]          rows as JSON on stdout

Each round runs the program, then ONNX Runtime on the same shapes, in a fresh process each: a run to
warm up, then as many as two seconds hold, at least 7, of which the median counts. A ratio is of one
round; the median over the rounds is shown. Ids are the same on both sides.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

MIXED = [min(128, 5 + (row * row * 37 + row * 11) % 44 + (118 if row == 7 else 0)) for row in range(32)]
SHAPES = {"1×16": [16], "1×128": [128], "8×128": [128] * 8, "32 mixed": MIXED}
# The names that the program has for the mixed batch: the same batch, with its padding or without.
OURS = {"32 mixed": ("32 mixed, padded", "32 mixed, padding skipped")}
UNITS = {"ns": 1e-6, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def inputs(lengths):
    width = max(lengths)
    ids = np.zeros((len(lengths), width), np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = [5 + (row * 131 + at * 17) % 1000 for at in range(length)]
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def theirs(graph, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    medians = {}
    for name, lengths in SHAPES.items():
        given, times = inputs(lengths), []
        session.run(None, given)
        begin = time.perf_counter()
        while len(times) < 7 or (time.perf_counter() - begin < 2 and len(times) < 500):
            start = time.perf_counter()
            session.run(None, given)
            times.append(1e3 * (time.perf_counter() - start))
        medians[name] = statistics.median(times)
    return medians


def ours(program, graph, threads):
    text = subprocess.run([program, str(graph), str(threads)], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^(.+?) +\d+ tokens +median +([\d.]+)(\D+?) ", text, re.M)
    return {name: float(number) * UNITS[unit] for name, number, unit in found}


def main():
    if sys.argv[1] == "--theirs":
        print(json.dumps(theirs(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    folder, program, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    for graph in sorted(folder.glob("*/model.onnx")):
        ratios = {}
        for _ in range(rounds):
            a = ours(program, graph, threads)
            other = [sys.executable, __file__, "--theirs", str(graph), threads]
            b = json.loads(subprocess.run(other, check=True, capture_output=True, text=True).stdout)
            for shape, median in b.items():
                for name in OURS.get(shape, (shape,)):
                    ratios.setdefault(name, []).append((median / a[name], a[name], median))
        for name, rows in ratios.items():
            ratio, mine, their = (statistics.median(column) for column in zip(*rows))
            row = {"model": graph.parent.name, "texts": name, "threads": int(threads), "rounds": rounds}
            print(json.dumps(row | {"compiled_ms": mine, "onnxruntime_ms": their, "times_as_fast": ratio}), flush=True)


if __name__ == "__main__":
    main()
