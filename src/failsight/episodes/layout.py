"""What LeRobotDataset v3.0 wants to be told about a run: `meta/info.json`, its features, and columns without rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from failsight.episodes.meta import RunMeta
from failsight.storage.video import CODEC

_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}
_HALF = ("policy.hidden", "policy.samples", "policy.members")


def empty_steps(run: RunMeta) -> pa.Table:
    """The columns of a run without any row, for episodes that broke before their first step."""

    def vector(size: int, kind: pa.DataType) -> pa.DataType:
        return pa.list_(kind, size)

    fields = [("signal", vector(len(run.signals), pa.float32()))] if run.signals else []
    if run.has_actions:
        sizes = (("observation.state", len(run.observation_spec.state)), ("action", len(run.action_spec.dimensions)))
        fields += [(name, vector(size, pa.float32())) for name, size in sizes if size]
        for name, shape in run.shapes.items():
            size = 1
            for length in shape:
                size *= length
            fields.append((name, vector(size, pa.float16() if name in _HALF else pa.float32())))
        fields += [("policy.cursor", pa.int64()), ("policy.replan", pa.bool_()), ("policy.latency_ms", pa.float32())]
        fields.append(("next.reward", pa.float32()))
    fields += [("next.success", pa.bool_()), ("next.done", pa.bool_())]
    return pa.schema(fields).empty_table()


def run_info(run: RunMeta, schema: pa.Schema, totals: tuple[int, int, int], fps: float, filmed: bool) -> dict[str, Any]:
    """`meta/info.json`; `totals` are episodes, frames and tasks."""
    return {
        "codebase_version": "v3.0",
        "robot_type": run.sim,
        "total_episodes": totals[0],
        "total_frames": totals[1],
        "total_tasks": totals[2],
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{totals[0]}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if filmed else None,
        "features": _features(run, schema, fps, filmed),
    }


def _features(run: RunMeta, schema: pa.Schema, fps: float, filmed: bool) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for field in schema:
        is_list = pa.types.is_fixed_size_list(field.type)
        kind = str(field.type.value_type if is_list else field.type)
        shape = [field.type.list_size if is_list else 1]
        features[field.name] = {"dtype": _DTYPES.get(kind, kind), "shape": shape, "names": None}
    names = {
        "observation.state": run.observation_spec.state,
        "action": run.action_spec.names,
        "signal": tuple(column.name for column in run.signals),
    }
    for name in names.keys() & features.keys():
        features[name]["names"] = list(names[name])
    if filmed:
        for camera, height, width in run.observation_spec.cameras:
            features[f"observation.images.{camera}"] = _video_feature(height, width, fps)
    return features


def _video_feature(height: int, width: int, fps: float) -> dict[str, Any]:
    info = {
        "video.height": height,
        "video.width": width,
        "video.channels": 3,
        "video.codec": CODEC,
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "is_depth_map": False,
        "has_audio": False,
    }
    return {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": info}
