"""Judging a bundle on a run it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from failsight.core.errors import EpisodeDataError
from failsight.core.types import FAILURE_TYPES
from failsight.episodes.run import Run
from failsight.evaluation import detection
from failsight.evaluation.detection import Scored
from failsight.evaluation.scoring import replay
from failsight.labels.table import read_labels
from failsight.monitor.bundle import load_monitor


def evaluate_bundle(folder: Path, bundle: Path) -> list[tuple[str, str]]:
    """Rows of (figure, value with interval), by replaying the monitor itself.

    Raises EpisodeDataError when the run has no scored episode or belongs to another policy.
    """
    run, monitor = Run(folder), load_monitor(bundle)
    labels = read_labels(run)
    if not labels:
        raise EpisodeDataError(f"{folder} has no scored episode.")
    scored = []
    for episode in run.read(sorted(labels)):
        verdicts, label = replay(monitor, episode), labels[episode.meta.ticket]
        on = [t for t, v in enumerate(verdicts) if v.trigger]
        scored.append(
            Scored(
                ticket=episode.meta.ticket,
                task=episode.meta.task,
                condition=episode.meta.condition,
                failed=not label.success,
                kind=-1 if label.failure_type is None else FAILURE_TYPES.index(label.failure_type),
                onset=label.onset,
                p_fail=np.array([v.risk.p_fail for v in verdicts]),
                alarm=np.array([v.margin for v in verdicts]),
                types=np.array([v.risk.type for v in verdicts]),
                time_to_failure=np.array([v.risk.time_to_failure for v in verdicts]),
                dimension=np.array([v.risk.dimension for v in verdicts]),
                dimension_labels=label.dimension,
                trigger=on[0] if on else None,
            )
        )
    horizon = run.episodes[0].horizon
    rows = [("episodes", str(len(scored))), ("failed", str(sum(s.failed for s in scored)))]
    for share in (25, 50):
        for name, value in detection.auc_table(scored, horizon * share // 100, "bundle").items():
            rows.append((f"{name} at {share} % of the horizon", str(value)))
    rows.append(("false alarms", str(detection.false_alarms(scored))))
    rows.append(("failures that trigger", str(detection.recall(scored))))
    rows.append(("lead before the end, steps", str(detection.lead_steps(scored))))
    return rows
