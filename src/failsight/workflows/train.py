"""`failsight train-policy --data ...`: any data, any cell of the lattice -> a checkpoint, its case, its checks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError, FailsightError
from failsight.core.foreign import read_text
from failsight.core.ranges import require_fields
from failsight.core.rng import keyed_rng
from failsight.core.textfiles import read_json_object
from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.episodes.meta import write_text_atomic
from failsight.evaluation.provenance import commit, versions
from failsight.policies.vla.design import VLAConfig, require_attention, require_cell
from failsight.policies.vla.failure_head import FailureLoss
from failsight.policies.vla.normalise import statistics
from failsight.policies.vla.store import read_config
from failsight.policies.vla.words import WORD_RULE, vocabulary_of
from failsight.training.config import TrainConfig
from failsight.training.judging import require_choice
from failsight.training.loop import Fitted, Hooks, Split, fit
from failsight.training.windows import choose_actions
from failsight.workflows.data_sets import open_data
from failsight.workflows.data_warnings import before_training, copy_groups


def split_of(data: DemonstrationSet, hold_out: Sequence[str], share: float, seed: int) -> Split:
    """Episodes to train and to validate on; scenarios in `hold_out` are in neither, and copies stay together.

    Raises FailsightError for a scenario the data does not have.
    """
    unknown = sorted(set(hold_out) - set(data.scenarios))
    if unknown:
        raise FailsightError(f"{data.source} has no scenario {unknown[0]!r}; it has {', '.join(data.scenarios)}.")
    rest = [i for i, row in enumerate(data.episodes) if row.scenario not in hold_out]
    order = keyed_rng("split", seed).permutation(len(rest))
    count = max(1, round(share * len(rest))) if share > 0 and len(rest) > 1 else 0
    group = copy_groups(data)
    chosen: set[int] = set()
    for i in order:
        if len(chosen) >= count:
            break
        chosen |= {e for e in rest if group[e] == group[rest[i]]}
    if len(chosen) == len(rest):
        chosen = set()  # all are copies of one another: nothing can be judged on them
    return Split(tuple(i for i in rest if i not in chosen), tuple(sorted(chosen)))


def make_config(data: DemonstrationSet, options: TrainConfig, split: Split) -> VLAConfig:
    """The policy's configuration; statistics are those of the training episodes alone."""
    require_cell(options.head, options.history, options.chunk)
    require_attention(options.backbone, options.history)
    names = choose_actions(data, options.action_dims)
    by_name = {dimension.name: dimension for dimension in data.action_spec.dimensions}
    spec = replace(data.action_spec, dimensions=tuple(by_name[name] for name in names))
    frames = frames_of(data, split.train)
    columns = [data.action_spec.names.index(name) for name in names]
    words = [text for key in data.instructions for text in (key, *data.phrasings.get(key, ()))]
    inputs = statistics(np.asarray(data.actions)[frames][:, columns], np.asarray(data.states)[frames], options.clip)
    kept = kept_of(options)
    rule = WORD_RULE if options.start is None else read_config(options.start).word_rule
    return VLAConfig(
        backbone=options.backbone,
        head=options.head,
        history=options.history,
        chunk=options.chunk,
        action_spec=spec,
        observation_spec=data.observation_spec,
        use_state=options.use_state and len(data.observation_spec.state) > 0,
        failure=options.failure if options.failure_head else None,
        auxiliary=options.auxiliary,
        scheme=options.scheme,
        arm_loss=options.arm_loss,
        gripper_ratio=options.gripper_ratio,
        statistics=inputs if kept is None else kept.statistics,
        vocabulary=vocabulary_of(words, rule) if kept is None else kept.vocabulary,
        word_rule=rule,
        provenance=provenance(data, options, split),
    )


def kept_of(options: TrainConfig) -> VLAConfig | None:
    """The policy whose inputs keep their meaning: the one a failure head alone is trained on. None otherwise."""
    alone = options.start is not None and options.fit.train == "failure"
    return read_config(options.start) if alone and options.start is not None else None


def settle_choice(options: TrainConfig, simulator: bool) -> TrainConfig:
    """The options with what chooses the best checkpoint settled: nothing kept for validation means the last one.

    Raises FailsightError at once for a choice that could never be made.
    """
    if options.fit.best_by == "validation" and options.validation_share == 0:
        options = replace(options, fit=replace(options.fit, best_by="last"))
    require_choice(options.fit.best_by, 1, simulator)
    return options


def frames_of(data: DemonstrationSet, episodes: Sequence[int]) -> Array:
    """(N,) flat frame numbers of some episodes."""
    rows = [data.episodes[e] for e in episodes]
    return np.concatenate([np.arange(r.first, r.first + r.length) for r in rows]) if rows else np.zeros(0, np.int64)


def provenance(data: DemonstrationSet, options: TrainConfig, split: Split) -> dict[str, object]:
    """Where a checkpoint comes from."""
    return {
        "data": data.source,
        "data_fingerprint": data.fingerprint,
        "episodes": len(split.train),
        "frames": len(frames_of(data, split.train)),
        "validation_episodes": len(split.valid),
        "hold_out": list(options.hold_out),
        "augment": asdict(options.augment),
        "started_from": str(options.start) if options.start else "",
        "versions": versions(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def train(
    data_path: Path,
    options: TrainConfig,
    folder: Path,
    *,
    progress: Callable[[int, Mapping[str, float]], None] = lambda step, values: None,
    success: Callable[[Path], float] | None = None,
    failure_loss: FailureLoss | None = None,
    cache: Path | None = None,
    check: Callable[[VLAConfig], None] = lambda config: None,
    note: Callable[[str], None] = lambda text: None,
    stop_at: int | None = None,
) -> Fitted:
    """Train and write `folder/best`, `folder/last`, `folder/case.json`; interrupted, the same call goes on.

    `check` refuses, before the first step, a policy that could not be used as planned (driven in a simulator); `note`
    is told then what in the data will not teach what it seems to. `stop_at`: leave after this step, the schedule unchanged.
    """
    import torch
    from accelerate import PartialState

    require_fields(options)
    options = settle_choice(options, success is not None)
    processes = PartialState(cpu=not torch.cuda.is_available())
    with processes.main_process_first():  # the others find the converted data
        data = _worded(open_data(data_path, cache), options.paraphrases)
    split = split_of(data, options.hold_out, options.validation_share, options.fit.seed)
    config = make_config(data, options, split)
    check(config)
    warnings = before_training(data, config, split)
    for line in warnings:
        note(f"careful: {line}")
    began = time.monotonic()
    if processes.is_main_process:
        write_case(folder, config, options, state="training", warnings=warnings)
        write_text_atomic(folder / "train_config.json", json.dumps(asdict(options), indent=1, default=str))
    try:
        fitted = fit(
            data,
            config,
            options.fit,
            split,
            folder,
            augment=options.augment,
            start=options.start,
            hooks=Hooks(progress=progress, success=success, failure_loss=failure_loss, stop_at=stop_at),
        )
    except (FailsightError, KeyboardInterrupt) as problem:
        if processes.is_main_process:
            stopped = isinstance(problem, KeyboardInterrupt)
            write_case(folder, config, options, state="interrupted" if stopped else "stopped by an error")
        raise
    if processes.is_main_process:
        value = fitted.best_value
        done = {"best_step": fitted.best_step, "best_value": value if np.isfinite(value) else None}
        write_case(folder, config, options, state="finished", wall_s=round(time.monotonic() - began, 1), **done)
    return fitted


def _worded(data: DemonstrationSet, table: Path | None) -> DemonstrationSet:
    """The data with the wordings of a table. Raises FailsightError when it words none of their instructions."""
    if table is None:
        return data
    phrasings = read_paraphrases(table)
    if not set(phrasings) & set(data.instructions):
        raise FailsightError(
            f"{table} words none of the instructions of {data.source} otherwise (the first is {data.instructions[0]!r}); "
            "its keys must be instructions as they stand in the data."
        )
    return replace(data, phrasings=phrasings)


def read_paraphrases(path: Path) -> dict[str, list[str]]:
    """Raises FailsightError when the file is not a table of wordings."""
    try:
        table = read_json_object(path)
        return {key: [read_text(v, f"{path}, {key!r}") for v in values] for key, values in table.items()}
    except (EpisodeDataError, TypeError) as error:
        raise FailsightError(
            f"{path} is not a JSON object of instruction -> list of other wordings ({error})."
        ) from error


def write_case(folder: Path, config: VLAConfig, options: TrainConfig, **facts: object) -> None:
    """`case.json`: one row of `failsight cases`. Facts of an earlier state stay."""
    path = folder / "case.json"
    known = read_json_object(path) if path.is_file() else {}
    known |= {
        "name": folder.name,
        "date": config.provenance.get("date", ""),
        "backbone": config.backbone.family,
        "initialisation": config.backbone.source or "scratch",
        "tuning": config.backbone.tuning,
        "lora_rank": config.backbone.lora_rank if config.backbone.tuning == "lora" else 0,
        "head": config.head.kind,
        "history": config.history.kind,
        "window": config.history.window,
        "chunk": config.chunk,
        "actions": config.actions,
        "failure_head": config.failure is not None,
        "data": config.provenance.get("data", ""),
        "episodes": config.provenance.get("episodes", 0),
        "frames": config.provenance.get("frames", 0),
        "steps": options.fit.steps,
        "windows_per_step": options.fit.batch * options.fit.accumulate,
        "best_by": options.fit.best_by,
        **facts,
    }
    write_text_atomic(path, json.dumps(known, indent=1))


def note_success(folder: Path, figures: Mapping[str, object]) -> None:
    """Add closed-loop figures to a case."""
    path = folder / "case.json"
    known = read_json_object(path) if path.is_file() else {"name": folder.name}
    write_text_atomic(path, json.dumps({**known, **figures}, indent=1))
