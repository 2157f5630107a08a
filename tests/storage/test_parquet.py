"""A flipped bit in a Parquet file of ours is found or changes nothing; nothing half-written stays."""

import errno
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from failsight.core.errors import EpisodeDataError, StorageError
from failsight.storage import parquet
from failsight.storage.parquet import footer_digest, read_frame, read_table, write_frame, write_table


def table(rows=40):
    rng = np.random.default_rng(0)
    flat = pa.array(rng.normal(size=rows * 4).astype(np.float16))
    return pa.table(
        {
            "hidden": pa.FixedSizeListArray.from_arrays(flat, 4),
            "index": pa.array(np.arange(rows)),
            "done": pa.array(rng.random(rows) < 0.5),
            "task": pa.array([f"task {i % 3}" for i in range(rows)]),
        }
    )


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, table())
    whole, good = path.read_bytes(), read_table(path)
    found = 0
    for bit in range(0, len(whole) * 8, 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            read = read_table(path)
        except EpisodeDataError:
            found += 1
        else:
            assert read.equals(good, check_metadata=True), f"bit {bit} was read as other values"
    assert found > 0.8 * len(whole) * 8 / 3


def test_other_readers_read_our_files(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, table())
    assert footer_digest(path)
    assert pq.read_table(path).equals(table())
    assert len(pd.read_parquet(path)) == 40
    pq.write_table(table(), path)
    assert footer_digest(path) == ""
    assert read_table(path).equals(table()), "files of others have no seal and are read as they are"


def test_columns_and_named_indices(tmp_path):
    write_table(tmp_path / "t.parquet", table())
    assert read_table(tmp_path / "t.parquet", ["index"]).column_names == ["index"]
    write_frame(tmp_path / "f.parquet", pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="task")))
    assert read_frame(tmp_path / "f.parquet").index.tolist() == ["a", "b"]


def test_a_path_with_an_equals_sign_adds_no_column(tmp_path):
    write_table(tmp_path / "seed=3" / "t.parquet", table())
    assert read_table(tmp_path / "seed=3" / "t.parquet").column_names == table().column_names


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_table(path, table(3))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet.TableWriter, "write", full)
    with pytest.raises(StorageError, match=r"t\.parquet: No space left"):
        write_table(path, table(5))
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert read_table(path).num_rows == 3


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"\x89PNG" * 9])
def test_what_is_no_parquet_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(EpisodeDataError, match="damaged or missing"):
        read_table(path)
