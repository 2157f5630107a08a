"""The training loop: accelerate over one process or many, exact resume, best by validation loss or by success.

Linear reading: prepare, for every step micro-batches -> losses -> clip -> step, now and then validate and save. Every
random draw is keyed by (seed, step), so a killed training goes on with the same losses, and two processes give the
losses of one with the doubled batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from failsight.core.errors import FailsightError, StorageError
from failsight.core.textfiles import read_json_lines
from failsight.core.types import Array
from failsight.episodes.demonstrations import DemonstrationSet
from failsight.policies.vla.base import base_identity
from failsight.policies.vla.batch import WindowBatch
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.failure_head import FailureLoss
from failsight.policies.vla.finite import better, require_finite_statistics, require_finite_weights
from failsight.policies.vla.model import VLAModel
from failsight.policies.vla.store import continue_from, fingerprint, older, restore, save_model
from failsight.training.judging import Judge, require_choice
from failsight.training.options import Augment, FitConfig
from failsight.training.precision import Skips, require_precision
from failsight.training.resume import load_state, save_state
from failsight.training.sampling import Loader, Plan, flow_draws
from failsight.training.schedule import rate
from failsight.training.tracking import Tracker, make_tracker
from failsight.training.windows import Windows


class Split(NamedTuple):
    """Episode numbers; whole scenarios may be held out."""

    train: tuple[int, ...]
    valid: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the caller adds."""

    progress: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    success: Callable[[Path], float] | None = None
    """Success rate of a checkpoint folder in a simulator, for `best_by="success"`."""
    failure_loss: FailureLoss | None = None
    stop_at: int | None = None
    """Leave after this step, as a kill would: what counts is what was saved by then."""


class Fitted(NamedTuple):
    """What a training leaves behind."""

    best: Path
    last: Path
    best_step: int
    best_value: float
    """Validation loss (lowest) or success rate (highest); NaN where the last one was asked for."""


def fit(
    data: DemonstrationSet,
    config: VLAConfig,
    options: FitConfig,
    split: Split,
    folder: Path,
    *,
    augment: Augment | None = None,
    start: Path | None = None,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train, writing `folder/last`, `folder/best`, `folder/losses.jsonl`; a second call goes on where it stopped.

    Args:
        data: demonstrations.
        config: the policy; statistics filled in.
        options: dials.
        split: training and validation episodes.
        folder: where everything goes.
        augment: None trains on the data as it is.
        start: checkpoint to continue from (other data, or a failure head on a finished policy).
        hooks: progress, success rate, failure loss.

    Raises FailsightError: no training windows, nothing to choose the best checkpoint by, a loss or gradient that is not
    finite (with the windows of that batch), no validation loss that is a number, a folder that holds another training.
    """
    return Training(data, config, options, split, folder, augment, start, hooks or Hooks()).run()


class Training:
    """State of one `fit` call."""

    def __init__(
        self,
        data: DemonstrationSet,
        config: VLAConfig,
        options: FitConfig,
        split: Split,
        folder: Path,
        augment: Augment | None,
        start: Path | None,
        hooks: Hooks,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
        if options.threads:
            torch.set_num_threads(options.threads)
        self.data, self.options, self.folder, self.hooks = data, options, folder, hooks
        self.split, self.augment, self.start = split, augment, start
        require_finite_statistics(config.statistics)
        config = replace(config, provenance={**config.provenance, "base": base_identity(config.backbone)})
        self.config = config
        self.windows = Windows(data, config, split.train, augment)
        self.valid = Windows(data, config, split.valid, None)
        if not len(self.windows):
            raise FailsightError("No training windows: the split leaves no episode to train on.")
        require_choice(options.best_by, len(self.valid), hooks.success is not None)
        if config.failure is not None and not _labelled(data, split.train):
            raise FailsightError(
                f"A failure head learns from failure labels, and the training episodes of {data.source} have none; label "
                "the run with: failsight label RUN, or train without --failure-head."
            )
        torch.manual_seed(options.seed)
        model = VLAModel(config)
        if start is not None:
            continue_from(model, start)
        model.train_only(options.train)
        model.failure_loss = hooks.failure_loss
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, options.learning_rate, weight_decay=options.weight_decay)
        require_precision(options.precision)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=options.precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.plain: VLAModel = self.accelerator.unwrap_model(self.model)
        plan = Plan(options.sampling, options.batch, options.accumulate, self.accelerator.num_processes, options.seed)
        flow = (config.history.window, config.chunk * config.actions) if config.head.draws else None
        self.loader = Loader(self.windows, plan, self.accelerator.process_index, flow)
        self.tracker: Tracker = make_tracker(options.tracker if self.main else "none", folder)
        self.judge = Judge(hooks.success, self.main) if options.best_by == "success" else None
        self.skips = Skips()
        self._unsound: set[str] = set()
        self.step, self.best_value, self.best_step = 0, float("nan"), -1

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> Fitted:
        """All remaining steps."""
        self._resume()
        last = min(self.options.steps, self.hooks.stop_at or self.options.steps)
        began = time.monotonic()
        first = self.step
        for ready in self.loader.steps(self.step, last):
            values = self._train_step(ready)
            self.step += 1
            elapsed = time.monotonic() - began
            windows = (self.step - first) * self.options.batch * self.options.accumulate
            values["samples_per_s"] = windows * self.accelerator.num_processes / elapsed
            values["waiting_share"] = self.loader.waited_s / elapsed
            self._log(values)
            if self.step % self.options.evaluate_every == 0 or self.step == self.options.steps:
                self._evaluate()
            if self.step % self.options.save_every == 0 or self.step == self.options.steps:
                self._save()
        self.tracker.close()
        return self._left_behind()

    def _left_behind(self) -> Fitted:
        last = self.folder / "last"
        if self.options.best_by == "last":
            return Fitted(last, last, self.step, float("nan"))
        if self.best_step < 0 and self.step == self.options.steps:
            places = f" (windows {', '.join(sorted(self._unsound)[:8])})" if self._unsound else ""
            raise FailsightError(
                f"No {self.options.best_by} figure of this training was a number{places}, so no checkpoint is the best; "
                f"the last one is {last}. Look at these episodes with: failsight audit."
            )
        return Fitted(self.folder / "best", last, self.best_step, self.best_value)

    def _train_step(self, ready: list[Any]) -> dict[str, float]:
        torch.manual_seed(self.options.seed * 1_000_003 + self.step)  # dropout, the only unkeyed draw
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * rate(
                self.options.schedule, self.step, self.options.warmup, self.options.steps
            )
        self.optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for i, item in enumerate(ready):
            with self._synchronised(i + 1 == len(ready)):
                losses = self._losses(item.batch, item.draws)
                shared = self.accelerator.reduce(losses["total"].detach().float(), "mean")
                self._require_finite(shared, "loss", item.batch.rows.tolist())
                self.accelerator.backward(losses["total"] / len(ready))
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / len(ready)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.options.clip or float("inf"))
        if self.accelerator.scaler is None:
            self._require_finite(norm, "gradient", [row for item in ready for row in item.batch.rows.tolist()])
        self.optimizer.step()
        self.skips.count(bool(self.accelerator.optimizer_step_was_skipped), self.step)
        values = {name: float(self.accelerator.reduce(value, "mean")) for name, value in sums.items()}
        return values | ({"skipped_steps": float(self.skips.total)} if self.skips.total else {})

    def _synchronised(self, last: bool) -> Any:
        """Gradients travel between processes only with the last micro-batch."""
        from contextlib import nullcontext

        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _losses(self, batch: WindowBatch, draws: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
        device = self.accelerator.device
        with self.accelerator.autocast():
            found: dict[str, Tensor] = self.model(
                batch.to(device), None if draws is None else (draws[0].to(device), draws[1].to(device))
            )
        return found

    def _require_finite(self, value: Tensor, what: str, rows: Sequence[int]) -> None:
        """`value` is the same in every process, so all of them stop."""
        if not torch.isfinite(value):
            names = self.windows.describe(np.array(rows))
            raise FailsightError(
                f"The {what} is not finite at step {self.step}; nothing of this step was kept. Windows of the batch: "
                f"{', '.join(names)}. Lower --fit.learning-rate, or look at these episodes with: failsight audit."
            )

    # ------------------------------------------------------------------ validation

    def validation(self) -> dict[str, float]:
        """Mean losses over evenly spaced windows of the validation episodes; empty where there are none."""
        count = min(len(self.valid), self.options.validation_windows)
        if count == 0:
            return {}
        chosen = np.linspace(0, len(self.valid) - 1, count).astype(int)
        self.model.eval()
        sums: dict[str, float] = {}
        with torch.no_grad():
            for part in np.array_split(chosen, max(1, count // 64)):
                batch = self.valid.batch(part, None)
                draws = None
                if self.config.head.draws:
                    size = self.config.chunk * self.config.actions
                    draws = flow_draws(part, -1, 0, self.config.history.window, size)
                losses = {name: float(value) for name, value in self._losses(batch, draws).items()}
                if not np.isfinite(losses["total"]):
                    self._unsound |= set(self.valid.describe(part[_unsound(batch)]))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value * len(part) / count
        return sums

    def _evaluate(self) -> None:
        values = {f"valid_{name}": value for name, value in self.validation().items()}
        score = -values.get("valid_total", float("nan"))
        require_finite_weights(self.plain, self.folder / "best")
        if self.judge is not None:
            if self.main:
                save_model(self.plain, self.config, self.folder / "candidate")
            score = values["success"] = self.judge.ask(self.folder / "candidate")
        if values:
            self._log(values)
        sign = 1 if self.judge is not None else -1
        if self.options.best_by != "last" and better(score, sign * self.best_value):
            self.best_value, self.best_step = sign * score, self.step
            if self.main:
                save_model(self.plain, self._stamped(values), self.folder / "best")

    def _stamped(self, values: Mapping[str, float]) -> VLAConfig:
        found = {**values, "step": self.step, "fit": asdict(self.options)}
        return replace(self.config, provenance={**self.config.provenance, **found})

    # ------------------------------------------------------------------ keeping

    def _save(self) -> None:
        require_finite_weights(self.plain, self.folder / "last")  # in every process, so that none waits for another
        if self.main:
            state = partial(save_state, identity=self._identity(), training=self, scaler=self.accelerator.scaler)
            save_model(self.plain, self.config, self.folder / "last", state)
        self.accelerator.wait_for_everyone()

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a training to go on."""
        fit = asdict(replace(self.options, threads=0, tracker="none"))
        policy = replace(self.config, provenance={}).as_dict()
        augment = None if self.augment is None else asdict(self.augment)
        texts = {key: list(values) for key, values in sorted(self.data.phrasings.items())}
        found = {
            "data": self.data.fingerprint,
            "split": self.split,
            "wordings": texts,
            "settings": [fit, policy, augment],
            "base": self.config.provenance["base"],
            "start": None if self.start is None else fingerprint(self.start),
        }
        whole: dict[str, Any] = json.loads(json.dumps(found))
        return whole

    def _resume(self) -> None:
        place = self.folder / "last"
        if not place.is_dir() and older(place).is_dir():
            place = older(place)
        if not (place / "training.json").is_file():
            return
        load_state(place, self._identity(), self, self.accelerator.scaler)
        restore(self.plain, place)
        _cut(self.folder / "losses.jsonl", self.step)

    def _log(self, values: Mapping[str, float]) -> None:
        if not self.main:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "losses.jsonl", "a") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")
        except OSError as error:
            raise StorageError(f"Cannot write into {self.folder}: {error.strerror}.") from error
        self.tracker.add(self.step, values)
        self.hooks.progress(self.step, values)


def _labelled(data: DemonstrationSet, episodes: Sequence[int]) -> bool:
    """Whether anything a failure head learns is known of any of the episodes."""
    rows = [data.episodes[e] for e in episodes]
    tables = [values for values in (data.fails, data.failing, data.left) if values is not None]
    return any(not np.isnan(values[r.first : r.first + r.length]).all() for values in tables for r in rows)


def _unsound(batch: WindowBatch) -> Array:
    """(B,) bool: windows with inputs or targets that are not finite; all of them where none has any."""
    bad = ~(torch.isfinite(batch.states).flatten(1).all(1) & torch.isfinite(batch.target).flatten(1).all(1)).numpy()
    return bad if bad.any() else np.ones(len(bad), bool)


def _cut(path: Path, step: int) -> None:
    """Drop what was logged after the step a training goes on from."""
    if not path.is_file():
        return
    kept = [row for _, row in read_json_lines(path) if row["step"] <= step]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
