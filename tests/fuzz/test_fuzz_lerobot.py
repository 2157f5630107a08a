"""Mutated LeRobot folders of others: rows read as they are, or refused in one sentence; nothing is left behind."""

import json
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_budget import cases
from lerobot_data import CAMERA, episode, video_of, write_folder, write_table

from failsight.core.errors import FailsightError
from failsight.workflows.data_sets import default_cache, open_data

CASES = 100
SLOWEST_S = 5.0
LENGTHS = (5, 3, 6)
ODD = (
    None,
    -1,
    0,
    3,
    1e9,
    2**63,
    "x",
    "",
    [],
    {},
    [None],
    {"a": 1},
    True,
    float("nan"),
    "../x",
    [2, 2],
    "{0.__class__}",
)


def damage_bytes(root, rng):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    path = files[int(rng.integers(len(files)))]
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        path.write_bytes(content[: int(rng.integers(len(content)))])
    else:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)


def damage_info(root, rng):
    """One value anywhere in the header becomes another."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    place = info
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    place[key] = ODD[int(rng.integers(len(ODD)))]
    path.write_text(json.dumps(info))


def damage_table(root, rng):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    frame = pd.read_parquet(path)
    name = str(rng.choice(frame.columns))
    frame[name] = frame[name].astype(float)
    frame.loc[int(rng.integers(len(frame))), name] = rng.choice([-1, 0, 1, 2, 2.5, 99, 1e18, np.nan, np.inf])
    frame.to_parquet(path, index=False)


def damage_rows(root, rng):
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = str(rng.choice([n for n in table.column_names if n != CAMERA]))
    values = table.column(name).to_pylist()
    at = int(rng.integers(len(values)))
    values[at] = ODD[int(rng.integers(len(ODD)))] if rng.random() < 0.5 else values[int(rng.integers(len(values)))]
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError):
        column = pa.array([str(value) for value in values])
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def move_table(root, rng):
    """Boundaries that are wrong, which the rows know better."""
    episodes = [episode(length, n) for n, length in enumerate(LENGTHS)]
    first = rng.integers(0, 14, 3)
    write_table(root, episodes, 10, dataset_from_index=first, dataset_to_index=first + 3)


CHANGES = (damage_bytes, damage_info, damage_table, damage_rows, move_table)


def open_or_refuse(root):
    try:
        return open_data(root), ""
    except FailsightError as error:
        return None, str(error)


@pytest.mark.parametrize("case", cases(CASES))
def test_a_mutated_folder_is_read_right_or_refused(case, tmp_path):
    rng = np.random.default_rng(case)
    episodes = [episode(length, n, task=f"task {n}") for n, length in enumerate(LENGTHS)]
    root = write_folder(tmp_path / "d", episodes, video=case % 2 == 1)
    before = set(root.rglob("*"))
    change = CHANGES[case // 2 % len(CHANGES)]
    change(root, rng)
    began = time.monotonic()
    data, refusal = open_or_refuse(root)
    assert time.monotonic() - began < SLOWEST_S
    assert set(root.rglob("*")) == before, "nothing is written into the data set"
    if data is None:
        assert "\n" not in refusal
        assert str(root) in refusal or root.name in refusal
        assert not default_cache(root).exists()
    elif change in (move_table, damage_table):
        assert [row.length for row in data.episodes] == list(LENGTHS)
        assert np.array_equal(data.actions, np.concatenate([item["action"] for item in episodes]))
        assert [row.instruction for row in data.episodes] == ["task 0", "task 1", "task 2"]
        seen = np.asarray(data.images["front"]).mean((1, 2, 3))
        wanted = np.concatenate([item["pictures"] for item in episodes]).mean((1, 2, 3))
        assert np.abs(seen - wanted).max() < 3
    else:
        assert np.isfinite(data.actions).all()
    assert video_of(root).exists() == (case % 2 == 1)
