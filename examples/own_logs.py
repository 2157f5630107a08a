"""Your own logs: episodes in memory become a run that fit, evaluate and report treat like any other.

python examples/own_logs.py FOLDER && failsight fit FOLDER && failsight report FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from failsight.episodes import from_arrays
from failsight.episodes.logged import LogOrigin
from failsight.workflows.import_logs import store_labelled


def my_episode(number: int) -> dict[str, object]:
    """Thirty steps; those of a failing episode become uncertain after half of them."""
    rng, failed = np.random.default_rng(number), number % 3 == 0
    entropy = rng.normal(1.0, 0.1, 30) + np.where(np.arange(30) > 15, float(failed), 0.0)
    return {"success": not failed, "task": f"task {number % 2}", "episode": number, "signals": {"entropy": entropy}}


if __name__ == "__main__":
    log = from_arrays(my_episode(number) for number in range(60))
    run = store_labelled(log, Path(sys.argv[1]), LogOrigin(policy="mine", suite="my benchmark", rate_hz=10.0))
    print(f"{len(run.episodes)} episodes in {run.root}")
