"""Small LeRobot v3.0 folders as others write them, for readers to be tried on: embedded pictures or one shared video."""

import json
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from failsight.storage.images import png_bytes

CAMERA = "observation.images.front"
SIDE = 32


def flat(values, side=SIDE):
    """(T, side, side, 3) pictures of one grey level each."""
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def episode(frames=10, number=0, task="go", size=2, **changes):
    rng = np.random.default_rng(number)
    made = {
        "action": rng.normal(size=(frames, size)).astype(np.float32),
        "observation.state": rng.normal(size=(frames, 2)).astype(np.float32),
        "tasks": [task] * frames if isinstance(task, str) else list(task),
        "pictures": flat([10 * (t + 1) + number for t in range(frames)]),
    }
    return {**made, **changes}


def write_video(path, frames, times):
    """H.264 with a time stamp per frame, in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        for picture, time_s in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(time_s * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def rows_of(episodes, fps, tasks):
    """One frame per row, as a data file holds them."""
    rows = []
    for number, item in enumerate(episodes):
        for t in range(len(item["action"])):
            rows.append(
                {
                    "observation.state": item["observation.state"][t].tolist(),
                    "action": item["action"][t].tolist(),
                    "timestamp": t / fps,
                    "frame_index": t,
                    "episode_index": number,
                    "index": len(rows),
                    "task_index": tasks.index(item["tasks"][t]),
                    CAMERA: {"bytes": png_bytes(item["pictures"][t]), "path": None},
                }
            )
    return rows


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"observation.state": pa.list_(pa.float32()), "action": pa.list_(pa.float32())}
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), path)


def write_folder(root, episodes, fps=10, video=False, names=None, stats=None, files=1, rearrange=lambda rows: rows):
    """The whole folder; `rearrange` changes the rows before they are written to `files` data files."""
    tasks = sorted({text for item in episodes for text in item["tasks"]})
    rows = rearrange(rows_of(episodes, fps, tasks))
    if video:
        rows = [{name: value for name, value in row.items() if name != CAMERA} for row in rows]
    for number, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        write_rows(root / f"data/chunk-{number // 2:03d}/file-{number % 2:03d}.parquet", [rows[i] for i in part])
    write_table(root, episodes, fps)
    (root / "meta").mkdir(exist_ok=True)
    index = pd.Index(tasks, name="task")
    pd.DataFrame({"task_index": range(len(tasks))}, index=index).to_parquet(root / "meta/tasks.parquet")
    if stats is not None:
        (root / "meta/stats.json").write_text(json.dumps(stats))
    write_info(root, fps, episodes[0], video, names)
    if video:
        pictures = np.concatenate([item["pictures"] for item in episodes])
        write_video(video_of(root), pictures, np.arange(len(pictures)) / fps)
    return root


def video_of(root):
    return root / f"videos/{CAMERA}/chunk-000/file-000.mp4"


def write_table(root, episodes, fps, **changes):
    lengths = [len(item["action"]) for item in episodes]
    first = np.cumsum([0, *lengths[:-1]])
    table = {
        "episode_index": range(len(lengths)),
        "length": lengths,
        "dataset_from_index": first,
        "dataset_to_index": first + lengths,
        "data/chunk_index": [0] * len(lengths),
        "data/file_index": [0] * len(lengths),
        f"videos/{CAMERA}/chunk_index": [0] * len(lengths),
        f"videos/{CAMERA}/file_index": [0] * len(lengths),
        f"videos/{CAMERA}/from_timestamp": first / fps,
        f"videos/{CAMERA}/to_timestamp": (first + lengths) / fps,
    }
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**table, **changes}).to_parquet(path, index=False)


def write_info(root, fps, item, video=False, names=None, **changes):
    size = item["action"].shape[1]
    features = {
        "action": {"dtype": "float32", "shape": [size], "names": names},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        CAMERA: {
            "dtype": "video" if video else "image",
            "shape": [*item["pictures"].shape[1:3], 3],
            "names": ["height", "width", "channels"],
        },
    }
    info = {
        "codebase_version": "v3.0",
        "fps": fps,
        "total_episodes": 99,
        "total_frames": 7,
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps({**info, **changes}))
