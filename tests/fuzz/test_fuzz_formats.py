"""Damaged files of any usual form: what is read is what a plain second reader finds there, or it is refused in one sentence.

No traceback, no partial folder, nothing that takes longer than five seconds of computing.
"""

import csv
import io
import json
import math
import pickle
import time
import warnings

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_budget import cases

from failsight.core.errors import FailsightError
from failsight.core.foreign import read_success
from failsight.episodes.formats.fields import read_map
from failsight.episodes.formats.format import ReadOptions
from failsight.episodes.logged import LogOrigin
from failsight.workflows.import_logs import import_log

ORIGIN = LogOrigin(policy="p", suite="s")
OPTIONS = ReadOptions(fields=read_map("success=ok,episode=ep,task=job,step=tick,signals=a+b"))
FORMS = ("csv", "jsonl", "npz", "parquet", "h5")
NASTY = (
    "NaN",
    "inf",
    "-1",
    "1e400",
    "null",
    "",
    "true",
    '"x"',
    "[1]",
    "{}",
    "2",
    "0.5",
    "1e39",
    "\\ud800",
    "maybe",
    str(2**70),
)


# ------------------------------------------------------------------ files to damage


def rows(rng):
    """Rows of three episodes; what stays undamaged must come out of them."""
    return [
        {"job": "open", "ep": e, "ok": bool(e % 2), "tick": t, "a": float(rng.random()), "b": float(rng.random())}
        for e in range(3)
        for t in range(int(rng.integers(1, 6)))
    ]


def write(form, some):
    columns, sink = {name: [row[name] for row in some] for name in some[0]}, io.BytesIO()
    if form == "csv":
        lines = [",".join(columns), *(",".join(str(v) for v in row.values()) for row in some)]
        return "\n".join(lines).encode() + b"\n"
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in some).encode()
    if form == "npz":
        np.savez(sink, **{name: np.array(values) for name, values in columns.items()})
    elif form == "parquet":
        pq.write_table(pa.table(columns), sink, write_page_checksum=True)
    else:
        with h5py.File(sink, "w") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=values)
    return sink.getvalue()


def damaged(rng, form, data):
    way = int(rng.integers(0, 6))
    at = int(rng.integers(0, len(data)))
    end = min(len(data), at + int(rng.integers(1, 40)))
    if way == 0:
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 4))):
            flipped[place] ^= 1 << int(rng.integers(0, 8))
        return bytes(flipped)
    if form in ("csv", "jsonl") and way < 4:
        cells = data.split(b"," if form == "csv" else b": ")
        cells[int(rng.integers(1, len(cells)))] = str(rng.choice(NASTY)).encode()
        return (b"," if form == "csv" else b": ").join(cells)
    if way == 1:
        return data[:at]
    if way == 2:
        return data[:at] + data[end:]
    if way == 3:
        return data[:at] + data[at:end] + data[at:]
    return data if way == 4 else data[:at] + bytes(rng.integers(0, 256, end - at, dtype=np.uint8)) + data[end:]


# ------------------------------------------------------------------ a second reader


def second_reading(form, data):
    """Rows as another library finds them."""
    if form == "csv":
        return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    if form == "jsonl":
        return [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    if form == "npz":
        columns = dict(np.load(io.BytesIO(data)))
    elif form == "parquet":
        return pq.read_table(io.BytesIO(data)).to_pylist()
    else:
        with h5py.File(io.BytesIO(data)) as file:
            columns = {name: file[name][()] for name in ("job", "ep", "ok", "tick", "a", "b")}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]


def number(value):
    if value is None or value == "" or value in ("NaN", "nan", "null"):
        return math.nan
    with np.errstate(over="ignore"):
        got = np.float32(value)
    return got if np.isfinite(got) else math.nan


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value).strip()


def require_same(run, found):
    groups = {}
    for row in found:
        groups.setdefault((text(row["job"]), text(row["ep"])), []).append(row)
    assert len(run.episodes) == len(groups)
    for episode, ((job, _), some) in zip(run.read(), groups.items(), strict=True):
        some.sort(key=lambda row: float(row["tick"]))
        assert (episode.meta.task, episode.meta.length) == (job, len(some))
        told = some[-1]["ok"]
        told = told.removesuffix(".0") if isinstance(told, str) else told
        assert (episode.meta.outcome == "success") == read_success(told, "")
        wanted = np.array([[number(row["a"]), number(row["b"])] for row in some], np.float32)
        np.testing.assert_array_equal(episode.signals, wanted)


# ------------------------------------------------------------------ the tests


def attempt(folder, name, data, options):
    folder.mkdir()
    (folder / name).write_bytes(data)
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_log("", folder, folder / "run", ORIGIN, options=options), None
    except FailsightError as error:
        return None, str(error)
    finally:
        assert time.process_time() - began < 5


def require_clean(folder, name, refusal):
    assert "\n" not in refusal
    assert len(refusal) < 700
    assert name in refusal or str(folder) in refusal
    assert [p.name for p in folder.iterdir()] == [name]


def test_damaged_tables_are_read_right_or_refused(tmp_path):
    accepted = 0
    for case in cases(500):
        rng, form = np.random.default_rng(case), FORMS[case % len(FORMS)]
        data, name = damaged(rng, form, write(form, rows(rng))), f"log.{form}"
        run, refusal = attempt(tmp_path / str(case), name, data, OPTIONS)
        if run is None:
            require_clean(tmp_path / str(case), name, refusal)
        else:
            accepted += 1
            require_same(run, second_reading(form, data))
    assert accepted >= len(cases(500)) // 8  # not by refusing everything


def test_damaged_pickles_are_read_or_refused(tmp_path):
    refused = 0
    for case in cases(60):
        rng = np.random.default_rng(case)
        steps = {"actions": rng.random((4, 7)), "features": rng.random((4, 3)), "success": True, "task_id": 1}
        data = damaged(rng, "pkl", pickle.dumps([steps, steps], protocol=[2, 4, 5][case % 3]))
        name, folder = "success_rollouts.pkl", tmp_path / str(case)
        _, refusal = attempt(folder, name, data, ReadOptions())
        if refusal is not None:
            refused += 1
            require_clean(folder, name, refusal)
    assert refused > 0
