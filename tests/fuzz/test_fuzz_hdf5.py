"""Mutated Mobile-VLA recordings: read as what they are, or refused in one sentence; never a traceback, a hang, a guess."""

import os

import h5py
import numpy as np
import pytest
from fuzz_budget import cases

from failsight.core.errors import EpisodeDataError
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.mobile_vla import read_episode, write_episode
from failsight.workflows.data_sets import default_cache, open_data

CASES = 300
SLOWEST_S = 5.0
"""Of processor time, children included: what a hang costs on any machine."""
KINDS = ("u1", "i2", "<f4", ">f4", "f8", "f2", "i8", "?", "S3", "c8", "u8")
SHAPES = (
    (),
    (0,),
    (6,),
    (6, 1),
    (1, 3),
    (6, 3),
    (3, 6),
    (7, 3),
    (6, 2),
    (6, 8, 8, 3),
    (6, 3, 8, 8),
    (6, 8, 8),
    (1, 8, 8, 3),
)
TEXTS = ("", " ", "go", "왼쪽", b"\xff\xfe", b"a\0b", "x" * 9999, 3, 0.5, [b"a", b"b"], [b"a"] * 6, [[b"a"]], True)


def recording():
    rng = np.random.default_rng(1)
    return Demonstration(
        name="a",
        instruction="go left",
        scenario="1box_vert_left",
        images={"front": rng.integers(0, 255, (6, 8, 8, 3)).astype(np.uint8)},
        states=rng.standard_normal((6, 2)).astype(np.float32),
        actions=rng.uniform(-1, 1, (6, 3)).astype(np.float32),
    )


def flip_bits(path, rng):
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, len(content), int(rng.integers(1, 9))):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])


def overwrite(path, rng):
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    content[at : at + 64] = rng.bytes(64) if rng.random() < 0.5 else bytes(64)
    path.write_bytes(content)


def swap_values(path, rng):
    """Another dataset under a known name: values of any kind and shape, or something else altogether."""
    name = str(rng.choice(["images", "actions", "states", "language_instruction"]))
    with h5py.File(path, "r+") as file:
        del file[name]
        pick = rng.random()
        if pick < 0.1:
            return
        if pick < 0.2:
            file.create_group(name)
        elif pick < 0.3:
            file[name] = h5py.SoftLink("/" + str(rng.choice(["actions", name, "nowhere", "images"])))
        elif pick < 0.4:
            file[name] = h5py.ExternalLink(str(rng.choice([path.name, "/etc/hostname", "nowhere.h5"])), "/actions")
        elif pick < 0.5:
            file.create_dataset(
                name, (2 ** int(rng.integers(10, 44)), 8, 8, 3)[: int(rng.integers(1, 5))], "u1", chunks=True
            )
        elif name == "language_instruction":
            put_text(file, TEXTS[int(rng.integers(len(TEXTS)))])
        else:
            put_values(file, name, rng)


def put_text(file, value):
    if isinstance(value, bytes):
        value = np.array(value, f"S{len(value)}")
    file.create_dataset("language_instruction", data=value)


def put_values(file, name, rng):
    shape, kind = SHAPES[int(rng.integers(len(SHAPES)))], str(rng.choice(KINDS))
    values = (rng.random(shape) * float(rng.choice([1, 255, 1e5, 1e300]))) - float(rng.choice([0, 1]))
    with np.errstate(all="ignore"):
        values = np.asarray(values).astype(kind)
    if values.size and values.dtype.kind == "f" and rng.random() < 0.3:
        values.flat[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, -np.inf])
    dataset = file.create_dataset(name, data=values)
    if rng.random() < 0.5:
        names = [["vy", "vx"], ["a", "a"], ["x"], 7, [1.5, 2.5], ["linear_y", "linear_x", "angular_z"], b"vx"]
        dataset.attrs["names"] = names[int(rng.integers(len(names)))]


BYTES, VALUES = (flip_bits, cut, overwrite), (swap_values,)


def believable(path, found):
    """What was read is what stands in the file, looked up by name."""
    with h5py.File(path, "r") as file:
        actions, pictures = np.asarray(file["actions"]), np.asarray(file["images"])
        names = [
            n.decode() if isinstance(n, bytes) else str(n)
            for n in np.atleast_1d(file["actions"].attrs.get("names", []))
        ]
    if names:
        actions = actions[:, [names.index(n) for n in ("linear_x", "linear_y", "angular_z")[: actions.shape[1]]]]
    assert np.array_equal(found.actions, actions.astype(np.float32))
    pictures = pictures.transpose(0, 2, 3, 1) if pictures.shape[3] != 3 else pictures
    scale = 255.0 if pictures.dtype.kind == "f" and pictures.max() <= 1 else 1.0
    assert np.abs(found.images["front"] - pictures.astype(np.float64) * scale).max() <= 0.51


def write_plain(path, item):
    """As others write it: no checksums, text of variable length. A flipped value cannot be noticed there."""
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=item.images["front"])
        file.create_dataset("actions", data=item.actions)
        file.create_dataset("states", data=item.states).attrs["names"] = ["vx", "vy"]
        file.create_dataset("language_instruction", data=item.instruction)


def read_or_refuse(path):
    try:
        return read_episode(path), ""
    except EpisodeDataError as error:
        return None, str(error)


@pytest.mark.parametrize("case", cases(CASES))
def test_a_mutated_recording_is_read_right_or_refused(case, tmp_path):
    rng = np.random.default_rng(case)
    path, wanted, plain = tmp_path / "data" / "episode_1_1box_vert_left.h5", recording(), case % 4 == 3
    if plain:
        write_plain(path, wanted)
    else:
        write_episode(path, wanted, ("vx", "vy"))
    change = (*BYTES, *VALUES * 3)[case // 4 % 6]
    change(path, rng)
    began = sum(os.times()[:4])
    found, refusal = read_or_refuse(path)
    if found is None:
        assert path.name in refusal
        assert "\n" not in refusal
        with pytest.raises(EpisodeDataError):
            open_data(path.parent)
        assert not default_cache(path.parent).exists()
    elif change in VALUES:
        believable(path, found)
    elif not plain:
        assert np.array_equal(found.actions, wanted.actions)
        assert np.array_equal(found.states, wanted.states)
        assert np.array_equal(found.images["front"], wanted.images["front"])
        assert (found.instruction, found.changes) == (wanted.instruction, wanted.changes)
    assert sum(os.times()[:4]) - began < SLOWEST_S
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing partial"
