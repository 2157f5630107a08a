"""Damaged logs: each one is read as a plain second reading of the same bytes says, or refused in one sentence.

No traceback, no partial folder, nothing that takes longer than five seconds.
"""

import gzip
import io
import json
import time
import zipfile

import numpy as np
import pytest
from fuzz_budget import cases

from failsight.cli.main import main
from failsight.core.errors import FailsightError
from failsight.episodes.logged import LogOrigin
from failsight.workflows.import_logs import import_log

ORIGIN = LogOrigin(policy="p", suite="s")
NPZ = (
    *("action_norm", "gripper_oscillation", "denoising_curvature", "eef_z", "chunk_mse", "chunk_mse_mmd"),
    *("gripper_qpos_mean", "eef_z_vel", "eef_speed_3d", "gripper_qpos_vel"),
)
WORDS = {"true": True, "1": True, "yes": True, "success": True}
WORDS |= {"false": False, "0": False, "no": False, "failure": False, "fail": False}


# --- logs to damage -----------------------------------------------------------------------------------------------------


def records(rng, groot):
    result = []
    for number in range(3):
        steps = []
        for t in range(int(rng.integers(1, 6))):
            step = {"t": t, "action_norm": float(rng.random()), "gripper_oscillation": int(rng.integers(0, 3))}
            if groot:
                step["is_replan"] = True
                if t:
                    step["chunk_mse"] = float(rng.random())
                position, fingers = rng.normal(size=3).tolist(), rng.normal(size=2).tolist()
                step["physics_info"] = {
                    "state.end_effector_position_absolute": position,
                    "state.gripper_qpos": fingers,
                }
            else:
                step |= {"chunk_mse": float(rng.random()), "eef_z": float(rng.random())}
            steps.append(step)
        record = {"episode_id": number, "success": bool(rng.random() < 0.5), "length": len(steps), "steps": steps}
        result.append(record if groot else {**record, "task_id": 4, "task_description": "do it"})
    return result


def arrays(rng):
    lengths = rng.integers(1, 6, 3).astype(np.int32)
    total = int(lengths.sum())
    return {
        "signals10": rng.random((total, 10)).astype(np.float32),
        "hidden": rng.normal(size=(total, 4)).astype(np.float16),
        "length": lengths,
        "success": rng.random(3) < 0.5,
        "episode_id": np.arange(3),
        "seed": np.arange(3) + 5,
        "instruction": np.array(["do it"] * 3),
        "task_embedding": np.zeros(3, np.float32),
    }


# --- ways to damage them ------------------------------------------------------------------------------------------------

VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e400", "null", "true", '"False"', '"0.5"', "[]", "[1, 2]", "{}", '{"a": 1}'),
    *("-1", "0.4", "2", "1e39", str(2**70), '"no"', '"\\ud800"', '""', "[" * 3000 + "]" * 3000),
)


def flips(rng, data):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(rng, data):
    return data[: int(rng.integers(len(data)))]


def holders(value):
    """Every (container, key) inside a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        yield value, key
        yield from holders(part)


def edit_record(rng, record, kind):
    places = list(holders(record))
    container, key = places[int(rng.integers(len(places)))]
    mark = "@@"
    if kind == "delete":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[str(rng.choice(["t", "chunk_mse", "success", "x", "", "length"]))] = container.pop(key)
    else:
        container[key] = mark
    value = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(record).replace(f'"{mark}"', value).replace(f"{mark}", "k")


def lines_of(rng, kept):
    kind = str(
        rng.choice(["delete", "rename", "swap", "swap", "twice", "shuffle", "order", "nest", "blank", "key twice"])
    )
    at = int(rng.integers(len(kept)))
    lines = [json.dumps(record) for record in kept]
    if kind in ("delete", "rename", "swap"):
        lines[at] = edit_record(rng, kept[at], kind)
    elif kind == "twice":
        lines.append(lines[at])
    elif kind == "shuffle":
        rng.shuffle(kept[at]["steps"])
        lines[at] = json.dumps(kept[at])
    elif kind == "order":
        rng.shuffle(lines)
    elif kind == "nest":
        lines[at] = "[" * int(rng.integers(1, 20_000))
    elif kind == "blank":
        lines.insert(at, "  ")
    elif kind == "key twice":
        lines[at] = lines[at].replace('"success": ', '"success": true, "success": ', 1)
    return ("\n".join(lines) + "\n").encode()


def pack(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array, allow_pickle=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=allow_pickle)
    return stream.getvalue()


def npz_of(rng, kept):
    kind = str(rng.choice(["drop", "header", "dtype", "shape", "value", "value", "object", "count", "unread"]))
    name = str(rng.choice(list(kept)))
    array = kept[name]
    members = {key: npy(value) for key, value in kept.items()}
    if kind == "drop":
        del members[name]
    elif kind == "header":
        old, new = f"({len(array)},".encode(), f"({10**12},".encode()
        members[name] = members[name].replace(old + b" " * (len(new) - len(old)), new).replace(old, b"(9,", 1)
    elif kind == "dtype":
        members[name] = npy(
            array.astype(str(rng.choice(["U5", "f8", "i8", "c16", "S3"]))) if array.dtype.kind != "U" else [7]
        )
    elif kind == "shape":
        members[name] = npy(array[..., None])
    elif kind == "value" and array.dtype.kind in "fiu":
        changed = array.astype(np.float64)
        changed.flat[int(rng.integers(changed.size))] = float(rng.choice([np.nan, np.inf, -1.0, 1e39, 0.5, 7.0]))
        members[name] = npy(changed)
    elif kind == "object":
        members[name] = npy(np.array([{}] * len(array), dtype=object), allow_pickle=True)
    elif kind == "count":
        members[name] = npy(array[:-1])
    elif kind == "unread":
        members["other"] = members["hidden"].replace(b"(", b"(9" * 5, 1)
    return pack(members)


def damaged(case):
    """File name and bytes of a case."""
    rng = np.random.default_rng(case)
    form = ("a.jsonl", "a.jsonl.gz", "a.npz")[case % 3]
    raw = rng.random() < 0.3
    if form == "a.npz":
        kept = arrays(rng)
        data = pack({key: npy(value) for key, value in kept.items()}) if raw else npz_of(rng, kept)
    else:
        kept = records(rng, groot=rng.random() < 0.5)
        plain = ("\n".join(map(json.dumps, kept)) + "\n").encode() if raw else lines_of(rng, kept)
        data = gzip.compress(plain, mtime=0) if form.endswith("gz") else plain
    if raw:
        data = (flips if rng.random() < 0.7 else cut)(rng, data)
    return form, data


# --- the second reading -------------------------------------------------------------------------------------------------


def truth(value):
    if isinstance(value, str):
        return WORDS[value.strip().lower()]
    if value in (0, 1):
        return bool(value)
    raise ValueError(value)


def number(value):
    if value is None:
        return np.nan
    if not isinstance(value, bool | int | float):
        raise TypeError(value)
    value = float(value)
    return value if abs(value) <= np.finfo(np.float32).max else np.nan


def flat(prefix, value, into):
    if isinstance(value, dict):
        for key, part in value.items():
            flat(key if prefix in ("", "physics_info") else f"{prefix}.{key}", part, into)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            flat(f"{prefix}.{i}", part, into)
    else:
        into[prefix] = number(value)
    return into


def second_reading_of_lines(data):
    result = []
    for line in data.decode().splitlines():
        if not line.strip():
            continue
        record = json.loads(line)
        steps = [flat("", {k: v for k, v in step.items() if k != "t"}, {}) for step in record["steps"]]
        assert len(steps) == record.get("length", len(steps))
        times = [float(step["t"]) for step in record["steps"] if "t" in step]
        assert (np.diff(times) > 0).all()
        columns = {n: np.array([s.get(n, np.nan) for s in steps]) for n in dict.fromkeys(n for s in steps for n in s)}
        where, fingers = "state.end_effector_position_absolute", "state.gripper_qpos"
        if f"{where}.2" in columns:
            p = np.stack([columns.pop(f"{where}.{i}") for i in range(3)])
            change = np.diff(p, axis=1, prepend=np.nan)
            columns |= {"eef_z": p[2], "eef_z_vel": abs(change[2]), "eef_speed_3d": np.sqrt((change**2).sum(0))}
        if f"{fingers}.1" in columns:
            mean = (columns.pop(f"{fingers}.0") + columns.pop(f"{fingers}.1")) / 2
            columns |= {"gripper_qpos_mean": mean, "gripper_qpos_vel": abs(np.diff(mean, prepend=np.nan))}
        result.append((int(record["episode_id"]), truth(record["success"]), columns, None))
    return result


def second_reading_of_npz(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        kept = {
            name: file[name] for name in (*arrays(np.random.default_rng(0)),) if name in file.files and name[0] != "t"
        }
    ends = np.cumsum(kept["length"]).astype(int)
    result = []
    for i, end in enumerate(ends):
        rows = slice(end - int(kept["length"][i]), end)
        columns = {
            name: np.array([number(v) for v in kept["signals10"][rows, c].tolist()]) for c, name in enumerate(NPZ)
        }
        hidden = kept["hidden"][rows].astype(np.float16) if "hidden" in kept else None
        if hidden is not None:
            hidden = np.where(np.isfinite(hidden), hidden, np.nan)
        result.append((int(kept["episode_id"][i]), truth(kept["success"][i].tolist()), columns, hidden))
    return result


def second_reading(name, data):
    if name.endswith("npz"):
        return second_reading_of_npz(data)
    return second_reading_of_lines(gzip.decompress(data) if name.endswith("gz") else data)


def require_same(run, expected):
    names = [column.name for column in run.meta.signals]
    stored = list(run.read())
    assert len(stored) == len(expected)
    for episode, (number_, success, columns, hidden) in zip(stored, expected, strict=True):
        assert episode.meta.episode == number_
        assert (episode.meta.outcome == "success") == success
        assert episode.meta.length == len(episode.signals)
        assert set(columns) <= set(names) | {n for n, v in columns.items() if np.isnan(v).all()}
        for name, values in zip(names, episode.signals.T, strict=True):
            told = columns.get(name, np.full(len(values), np.nan))
            np.testing.assert_allclose(values, told.astype(np.float32), rtol=1e-6, atol=1e-12, err_msg=name)
        assert (episode.hidden is None) == (hidden is None)
        if hidden is not None:
            np.testing.assert_array_equal(episode.hidden, hidden)


# --- the test -----------------------------------------------------------------------------------------------------------


def attempt(folder, name, data):
    """(run, None) or (None, refusal) of one damaged log."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    try:
        return import_log("", folder / name, folder / "run", ORIGIN), None
    except FailsightError as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_logs_are_read_right_or_refused(tmp_path, capsys):
    accepted = 0
    for case in cases(500):
        name, data = damaged(case)
        folder, began = tmp_path / str(case), time.monotonic()
        run, refusal = attempt(folder, name, data)
        assert time.monotonic() - began < 5, case
        if run is not None:
            accepted += 1
            require_same(run, second_reading(name, data))
            continue
        assert name in refusal
        assert "\n" not in refusal
        assert len(refusal) < 600
        assert [p.name for p in folder.iterdir()] == [name]
        if case % 10 == 0:
            with pytest.raises(SystemExit) as stop:
                main(["import", str(folder / name), "--out", str(folder / "run")])
            assert stop.value.code == 2
            assert [p.name for p in folder.iterdir()] == [name]
    assert accepted >= len(cases(500)) // 8  # not by refusing everything
