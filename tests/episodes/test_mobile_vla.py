"""HDF5 recordings of others: usual layouts are read, everything else is one sentence, nothing leads out of the file."""

import os
import signal
import zlib

import h5py
import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.episodes.demonstrations import Demonstration
from failsight.episodes.formats.mobile_vla import files_of, read_episode, read_folder, write_episode
from failsight.storage.hdf5_glance import require_harmless

FRAMES = 6


def recording(**changes):
    rng = np.random.default_rng(1)
    values = {
        "name": "a",
        "instruction": "go left",
        "scenario": "1box_vert_left",
        "images": {"front": rng.integers(0, 255, (FRAMES, 8, 8, 3)).astype(np.uint8)},
        "states": rng.standard_normal((FRAMES, 2)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (FRAMES, 3)).astype(np.float32),
    }
    return Demonstration(**{**values, **changes})


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "episode_1_1box_vert_left.h5"
    write_episode(found, recording(), ("vx", "vy"))
    return found


def put(path, name, values, **attributes):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if values is not None:
            file.create_dataset(name, data=values).attrs.update(attributes)


# ------------------------------------------------------------------ texts


@pytest.mark.parametrize(
    "value",
    [
        "go right",
        b"go right",
        [b"go right"],
        np.array("go right", h5py.string_dtype("utf-8")),
        np.array(["go right"], h5py.string_dtype("ascii")),
        np.array(b"go right\0\0\0", "S11"),
        b"\xef\xbb\xbfgo right ",
        [b"go right"] * FRAMES,
        [b"go right"] * 3,
    ],
    ids=range(9),
)
def test_an_instruction_is_read_however_it_is_stored(path, value):
    put(path, "language_instruction", value)
    assert read_episode(path).instruction == "go right"


@pytest.mark.parametrize("value", [None, b"", b"   ", [b""], np.array(b"\0\0", "S2"), np.array([], "S1")], ids=range(6))
def test_without_a_text_the_file_name_decides(path, value):
    put(path, "language_instruction", value)
    assert "on the left" in read_episode(path).instruction


def test_other_scripts_and_a_text_per_frame(path):
    put(path, "language_instruction", "왼쪽으로 돌아".encode())
    assert read_episode(path).instruction == "왼쪽으로 돌아"
    put(path, "language_instruction", [b"go left"] * 2 + [b"stop"] * (FRAMES - 2))
    item = read_episode(path)
    assert (item.instruction, item.changes) == ("go left", ((2, "stop"),))
    write_episode(path, item, ())
    assert read_episode(path).changes == item.changes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("größer".encode("latin-1"), "not UTF-8"),
        (np.array("go left".encode("utf-16-le"), "S14"), "broken character"),
        (np.array(b"go\0left", "S7"), "broken character"),
        (3, "expected text"),
        ([b"go left", b"go right"], r"one,? .*or one per frame"),
        ([[b"go left"]], r"one,? .*or one per frame"),
        (b"x" * 5000, "5000 characters"),
        (np.zeros((), "S2000000"), "declares"),
    ],
    ids=range(8),
)
def test_texts_that_are_none_are_refused(path, value, message):
    put(path, "language_instruction", value)
    with pytest.raises(EpisodeDataError, match=message) as caught:
        read_episode(path)
    assert str(path) in str(caught.value)


# ------------------------------------------------------------------ numbers and pictures


def test_pictures_as_floats_and_with_colours_first_are_the_same_pictures(path):
    wanted = recording().images["front"]
    for values in (wanted / 255, (wanted / 255).astype(np.float32), wanted.astype(np.float64), wanted.astype(np.int16)):
        put(path, "images", values)
        assert np.array_equal(read_episode(path).images["front"], wanted)
    put(path, "images", wanted.transpose(0, 3, 1, 2))
    assert np.array_equal(read_episode(path).images["front"], wanted)
    dark = np.minimum(wanted, 1)
    dark[0, 0, 0] = 200
    put(path, "images", dark.astype(np.float32))
    assert np.array_equal(read_episode(path).images["front"], dark), "a dark frame of a bright episode stays dark"


@pytest.mark.parametrize("values", [-0.1, 1.5, 300.0, np.nan, np.inf])
def test_pictures_of_another_range_are_refused(path, values):
    pictures = recording().images["front"].astype(np.float32)
    pictures[2, 1, 1, 1] = values
    put(path, "images", pictures)
    with pytest.raises(EpisodeDataError, match="frame 2: a picture holds"):
        read_episode(path)


def test_one_state_per_frame_is_one_entry(path):
    put(path, "states", np.arange(FRAMES), names=["speed"])
    assert read_episode(path).states.shape == (FRAMES, 1)
    put(path, "states", np.arange(FRAMES))
    assert read_folder(path.parent)[2].state == ("state_0",)


def test_entries_go_by_name_in_every_file(path):
    other = path.with_name("episode_2_1box_vert_left.h5")
    write_episode(other, recording(), ("vx", "vy"))
    put(other, "states", recording().states[:, ::-1], names=["vy", "vx"])
    put(other, "actions", recording().actions[:, [2, 0, 1]], names=["angular_z", "linear_x", "linear_y"])
    first, second = read_folder(path.parent)[0]
    assert np.array_equal(first.states, second.states)
    assert np.array_equal(first.actions, second.actions)
    for name, values, names in (
        ("states", recording().states, ["vx", "vz"]),
        ("states", recording().states[:, :1], ["vx"]),
        ("states", recording().states, ["vx"]),
        ("states", recording().states, ["vx", "vx"]),
        ("actions", recording().actions, ["a", "b", "c"]),
    ):
        put(other, name, values, names=names)
        with pytest.raises(EpisodeDataError, match=r"entries|occurs twice"):
            list(read_folder(path.parent)[0])
        write_episode(other, recording(), ("vx", "vy"))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("actions", np.zeros(FRAMES), r"must be \(N, 3\)"),
        ("actions", np.zeros((FRAMES, 1)), r"must be \(N, 3\)"),
        ("actions", np.zeros((1, 3)), "lengths differ"),
        ("actions", np.zeros((FRAMES, 3), bool), "expected numbers"),
        ("actions", np.full((FRAMES, 3), b"x"), "expected numbers"),
        ("actions", np.zeros((FRAMES, 3), [("a", "f4")]), "numbers or text are wanted"),
        ("actions", np.full((FRAMES, 3), 1e300), "expected finite"),
        ("states", np.zeros((FRAMES, 2, 2)), "must be"),
        ("states", np.full((FRAMES, 2), np.inf), "expected finite"),
        ("images", np.zeros((FRAMES, 8, 8, 3), complex), "numbers or text are wanted"),
        ("images", h5py.Empty("f4"), "is empty"),
    ],
    ids=range(11),
)
def test_values_of_another_kind_or_shape_are_refused(path, name, values, message):
    put(path, name, values)
    with pytest.raises(EpisodeDataError, match=message) as caught:
        read_episode(path)
    assert path.name in str(caught.value)


# ------------------------------------------------------------------ bounds and links


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_terabytes_are_refused_before_they_are_read(path, compression):
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset(
            "images", (40 * 2**20, 1024, 1024, 3), np.uint8, chunks=(1, 64, 64, 3), compression=compression
        )
    with pytest.raises(EpisodeDataError, match="declares 131,941,395,333,120 bytes"):
        read_episode(path)


def test_a_block_that_unpacks_to_gigabytes_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset(
            "images",
            (FRAMES, 8, 8, 3),
            np.uint8,
            maxshape=(None,) * 4,
            chunks=(100, 1000, 1000, 30),
            compression="gzip",
        )
    with pytest.raises(EpisodeDataError, match="stored in blocks"):
        read_episode(path)


def test_a_block_that_unpacks_to_more_than_it_declares_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file["images"]
        images = file.create_dataset(
            "images", (FRAMES, 8, 8, 3), np.uint8, chunks=(FRAMES, 8, 8, 3), compression="gzip"
        )
        images.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(2**26)))
    with pytest.raises(EpisodeDataError, match="unpacks to more"):
        read_episode(path)


def test_usual_packings_are_read_and_others_refused(path):
    wanted = recording().images["front"]
    for options in (
        {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": True},
    ):
        with h5py.File(path, "r+") as file:
            del file["images"]
            file.create_dataset("images", data=wanted, **options)
        assert np.array_equal(read_episode(path).images["front"], wanted)
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", data=wanted, scaleoffset=0)
    with pytest.raises(EpisodeDataError, match="scaleoffset"):
        read_episode(path)


@pytest.mark.parametrize("name", ["images", "actions", "states", "language_instruction"])
def test_links_out_of_the_file_are_not_followed(path, tmp_path, name):
    other = tmp_path / "other.h5"
    write_episode(other, recording(), ("vx", "vy"))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(other), f"/{name}")
    with pytest.raises(EpisodeDataError, match="link to another file"):
        read_episode(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file["away"] = h5py.ExternalLink(str(other), "/")
        file[name] = h5py.SoftLink(f"/away/{name}")
    with pytest.raises(EpisodeDataError, match="link to another file"):
        read_episode(path)


def test_links_inside_the_file_are_followed_and_circles_refused(path):
    wanted = read_episode(path).actions
    with h5py.File(path, "r+") as file:
        file.move("actions", "deep/actions")
        file["actions"] = h5py.SoftLink("/deep/actions")
    assert np.array_equal(read_episode(path).actions, wanted)
    with h5py.File(path, "r+") as file:
        del file["actions"]
        file["actions"] = h5py.SoftLink("/again")
        file["again"] = h5py.SoftLink("/actions")
    with pytest.raises(EpisodeDataError, match=r"lacks actions|circle"):
        read_episode(path)


def test_values_kept_in_other_files_are_refused(path, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(FRAMES * 3 * 4))
    with h5py.File(path, "r+") as file:
        del file["actions"]
        file.create_dataset("actions", (FRAMES, 3), "f4", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(EpisodeDataError, match="in other files"):
        read_episode(path)
    layout = h5py.VirtualLayout((FRAMES, 3), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "actions", (FRAMES, 3))
    with h5py.File(path, "r+") as file:
        del file["actions"]
        file.create_virtual_dataset("actions", layout)
    with pytest.raises(EpisodeDataError, match="in other files"):
        read_episode(path)


def test_what_is_no_recording_is_left_alone(path):
    (path.parent / "._episode_2.h5").write_bytes(b"left by another system")
    (path.parent / "folder.h5").mkdir()
    assert files_of(path.parent) == [path]


def test_a_flipped_bit_in_a_recording_of_ours_is_found(path):
    wanted, content = read_episode(path), bytearray(path.read_bytes())
    silent = 0
    for at in np.random.default_rng(0).integers(0, len(content), 150):
        content[at] ^= 16
        path.write_bytes(content)
        try:
            found = read_episode(path)
            same = all(np.array_equal(getattr(found, n), getattr(wanted, n)) for n in ("states", "actions"))
            silent += not (same and np.array_equal(found.images["front"], wanted.images["front"]))
            silent += (found.instruction, found.changes) != (wanted.instruction, wanted.changes)
        except EpisodeDataError:
            pass
        content[at] ^= 16
    assert silent == 0


def test_a_file_that_makes_the_library_spin_or_crash_is_refused_in_time(tmp_path):
    files = [tmp_path / name for name in ("good.h5", "spins.h5", "crashes.h5")]

    def look(path):
        if path.name == "crashes.h5":
            os.kill(os.getpid(), signal.SIGSEGV)
        while path.name == "spins.h5":
            pass
        raise RuntimeError("damage of the usual kind is left to the caller")

    require_harmless(files[:1], look)
    for path in files[1:]:
        with pytest.raises(EpisodeDataError, match=f"{path.name} makes the HDF5 library crash or run without end"):
            require_harmless([files[0], path], look)
