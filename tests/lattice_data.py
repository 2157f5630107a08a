"""A small data set whose actions can be read off the images, for tests of the training code."""

import numpy as np

from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.episodes.demonstrations import Demonstration, save_demonstrations
from failsight.policies.vla.design import BackboneConfig, FailureConfig, HeadConfig, HistoryConfig, VLAConfig
from failsight.policies.vla.normalise import statistics
from failsight.testing.tiny_vlms import BUILDERS, _text, _vision, save_tiny_vlm

WORDS = ("bottle", "go", "left", "right", "the", "to")


def action_spec(size):
    names = ("linear_x", "linear_y", "angular_z", "droll", "dpitch", "dyaw")
    arm = [Dimension(name=n, kind="velocity", unit="m/s", low=-2.0, high=2.0, hold=0.0) for n in names[: min(size, 6)]]
    gripper = [Dimension(name="gripper", kind="binary", unit="sign")] if size == 7 else []
    return ActionSpec(dimensions=(*arm, *gripper), frame="base", rate_hz=2.5, gripper_closed_sign=1)


def observation_spec(cameras=1):
    return ObservationSpec(state=("vx", "vy"), cameras=tuple((f"cam{i}", 24, 24) for i in range(cameras)))


def demonstrations(episodes=3, frames=10, size=3, cameras=1, labels=False, seed=0):
    rng = np.random.default_rng(seed)
    for e in range(episodes):
        actions = rng.uniform(-1.5, 1.5, (frames, size)).astype(np.float32)
        if size == 7:
            actions[:, 6] = np.sign(actions[:, 6])
        images = rng.integers(0, 60, (frames, 24, 24, 3)).astype(np.uint8)
        for t in range(frames):
            row, column = (int(11 + 6 * v) for v in actions[t, :2])
            images[t, max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] = 250
        failed = float(e % 2)
        extra = {}
        if labels:
            left = np.maximum(frames // 2 - np.arange(frames), 0).astype(np.float32)
            extra = {
                "fails": np.full(frames, failed, np.float32),
                "failing": (left * failed * 0 + (left < 2) * failed).astype(np.float32),
                "left": left if failed else np.full(frames, np.inf, np.float32),
            }
        yield Demonstration(
            name=f"episode-{e}",
            instruction="go to the bottle left" if e % 2 else "go to the bottle right",
            scenario=f"scenario-{e % 2}",
            images={f"cam{i}": images for i in range(cameras)},
            states=rng.standard_normal((frames, 2)).astype(np.float32),
            actions=actions,
            **extra,
        )


def make_data(folder, **options):
    size, cameras = options.get("size", 3), options.get("cameras", 1)
    return save_demonstrations(
        folder, demonstrations(**options), action_spec(size), observation_spec(cameras), source="test data"
    )


def make_config(data, family, source, head, history, tuning="lora", chunk=2, failure=False, **backbone):
    window = 1 if history == "one-step" else 3
    return VLAConfig(
        backbone=BackboneConfig(
            family=family, source=str(source), tuning=tuning, lora_rank=4, width=32, depth=1, **backbone
        ),
        head=HeadConfig(kind=head, width=32, depth=1, samples=2, flow_steps=2),
        history=HistoryConfig(kind=history, window=window, stride=1),
        chunk=chunk,
        action_spec=data.action_spec,
        observation_spec=data.observation_spec,
        failure=FailureConfig(width=16) if failure else None,
        statistics=statistics(np.asarray(data.actions), np.asarray(data.states)),
        vocabulary=WORDS,
    )


def openvla_config():
    from failsight.policies.vla import prismatic

    prismatic.register()
    return prismatic.PrismaticConfig(
        vision_config={"model_type": "dinov2", **_vision(), "mlp_ratio": 2},
        second_config={"model_type": "siglip_vision_model", **_vision()},
        text_config={"model_type": "llama", **_text()},
        image_token_id=4,
    )


def save_family(family, folder):
    return save_tiny_vlm(family, folder, config=openvla_config() if family == "openvla" else None)


FAMILIES = ("tiny", *BUILDERS, "openvla")
