"""The real logs, where they are at hand (they are not part of the project): readers and the default's level."""

import numpy as np
import pytest

from failsight.core.errors import EpisodeDataError
from failsight.evaluation.bench_figures import auc_figures, bootstraps
from failsight.evaluation.judging import judge, without_short
from failsight.evaluation.protocols import PROTOCOLS, splits
from failsight.predictors.detectors import DETECTORS
from failsight.recipes.bench.real import ORIGINS, find_data
from failsight.workflows.fit import read_data
from failsight.workflows.import_logs import import_log

try:
    PLACE = find_data(None)
except EpisodeDataError:
    PLACE = None


@pytest.mark.slow
@pytest.mark.skipif(PLACE is None, reason="the logs released with ActProbe are not beside the project")
@pytest.mark.parametrize(
    ("name", "facts", "metric", "least"),
    [
        ("pi0_libero", (500, 134, 34), "auc25_within", 60),
        ("pi05_robocasa", (595, 91, 90), "early_within_folds", 70),
    ],
)
def test_the_default_keeps_its_level_on_real_logs(tmp_path, name, facts, metric, least):
    """Figures of the feasibility study: 500 episodes, 134 failures of which 34 contradict their length; and so on."""
    data = without_short(read_data(import_log("", PLACE / name, tmp_path / "run", ORIGINS[name])))
    odd = data.facts.failed & ~data.facts.timed_out
    assert (len(data.facts.task), int(data.facts.failed.sum()), int(odd.sum())) == facts
    folds = splits(PROTOCOLS["folds"], data.facts)
    stored = {"folds": [judge(data, DETECTORS["ledger"], split, k) for k, split in enumerate(folds)]}
    figures = auc_figures(stored, data.facts, bootstraps(data.facts, name), True)
    assert figures[metric]["value"] > least
    assert np.mean([t.fit_s for t in stored["folds"]]) < 30
