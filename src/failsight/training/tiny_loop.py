"""The training loop of the tiny policy: fixed steps, cosine schedule, bf16, resumable, TensorBoard."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from failsight.core.errors import FailsightError
from failsight.policies.vla.checkpoint import save_checkpoint
from failsight.policies.vla.config import TinyConfig
from failsight.policies.vla.network import TinyVLA, losses
from failsight.training.tiny_data import Batches, Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Dials of one training; counted in steps, so that the result does not depend on the machine's load."""

    steps: int = 8000
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup: int = 100
    seed: int = 0
    threads: int = 2
    stop: int | None = None
    """Stop early after this step, the schedule unchanged (an undertrained policy)."""
    snapshot_every: int = 250
    validation_share: float = 0.04
    """Share of episodes kept for the validation losses."""


Progress = Callable[[int, dict[str, float]], None]


def train(
    frames: Frames,
    instructions: Sequence[Sequence[str]],
    config: TinyConfig,
    options: TrainOptions,
    folder: Path,
    progress: Progress,
) -> TinyVLA:
    """Train, writing `snapshots/<step>` and `state.safetensors` as it goes; a second call resumes after a kill.

    Raises FailsightError when a loss or gradient is not finite, naming the step, and when the folder holds a training of
    other data or settings.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = TinyVLA(config)
    optimizer = torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
    )
    batches = Batches(frames, instructions, config)
    held_out = frames.episode % round(1 / options.validation_share) == 0
    train_rows, valid_rows = (torch.from_numpy(np.nonzero(mask)[0]) for mask in (~held_out, held_out))
    identity = _identity(frames, instructions, config, options)
    start = _resume(folder, network, optimizer, identity)
    writer = SummaryWriter(str(folder / "tensorboard"))
    began = time.monotonic()
    last = options.stop or options.steps
    for step in range(start, last):
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        torch.manual_seed(options.seed * 1_000_003 + step)
        rows = train_rows[torch.randint(len(train_rows), (options.batch,), generator=generator)]
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(network, *batches.draw(rows, augment=True))
        loss = torch.stack(list(parts.values())).sum()
        _require_finite(loss, "loss", step, rows)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _require_finite(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0), "gradient", step, rows)
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _rate(step, options)
        optimizer.step()
        if (step + 1) % 50 == 0:
            values = {name: float(part.detach()) for name, part in parts.items()}
            values["samples_per_s"] = (step + 1 - start) * options.batch / (time.monotonic() - began)
            for name, value in values.items():
                writer.add_scalar(f"train/{name}", value, step + 1)
            progress(step + 1, values)
        if (step + 1) % options.snapshot_every == 0 or step + 1 == last:
            valid = validate(network, batches, valid_rows)
            for name, value in valid.items():
                writer.add_scalar(f"valid/{name}", value, step + 1)
            progress(step + 1, {f"valid_{name}": value for name, value in valid.items()})
            _snapshot(folder, step + 1, network, optimizer, identity)
    writer.close()
    return network


def _identity(frames: Frames, instructions: Sequence[Sequence[str]], config: TinyConfig, options: TrainOptions) -> str:
    """16 hex digits over what must be the same for a training to go on; where it stops and how fast may differ."""
    dials = asdict(replace(options, threads=0, stop=None))
    policy = replace(config, provenance={}).as_dict()
    text = json.dumps([frames.fingerprint, [list(texts) for texts in instructions], dials, policy], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _require_finite(value: torch.Tensor, what: str, step: int, rows: torch.Tensor) -> None:
    if not torch.isfinite(value):
        raise FailsightError(f"The {what} is not finite at step {step} (rows {rows[:8].tolist()} ...).")


def _rate(step: int, options: TrainOptions) -> float:
    if step < options.warmup:
        return (step + 1) / options.warmup
    share = (step - options.warmup) / max(1, options.steps - options.warmup)
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, share)))) + 1e-3


def validate(network: TinyVLA, batches: Batches, rows: torch.Tensor) -> dict[str, float]:
    """Mean losses on held-out episodes, without augmentation (NaN when there are none)."""
    sums: dict[str, list[float]] = {"chunk": [], "flow": [], "aux": []}
    torch.manual_seed(0)
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for part in torch.split(rows, 256):
            batch, chunk, aux, weight = batches.draw(part, augment=False)
            for name, value in losses(network, batch, chunk, aux, torch.ones_like(weight)).items():
                sums[name].append(float(value))
    network.train()
    return {name: float(np.mean(values)) if values else float("nan") for name, values in sums.items()}


def _snapshot(folder: Path, step: int, network: TinyVLA, optimizer: torch.optim.Optimizer, identity: str) -> None:
    save_checkpoint(network, folder / "snapshots" / f"{step:06d}")
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    save_file(tensors, folder / "state.partial", metadata={"step": str(step), "identity": identity})
    os.replace(folder / "state.partial", folder / "state.safetensors")


def _resume(folder: Path, network: TinyVLA, optimizer: torch.optim.Optimizer, identity: str) -> int:
    """Restore network and optimizer; the step to go on from. Raises FailsightError for another training."""
    path = folder / "state.safetensors"
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        step, found = int(file.metadata()["step"]), file.metadata().get("identity")
        if found != identity:
            raise FailsightError(
                f"{folder} holds a training of other data or settings; choose another --out, or delete it."
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network.load_state_dict({n[8:]: v for n, v in tensors.items() if n.startswith("network.")})
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
