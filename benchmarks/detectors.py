"""One step of the evidence ledger and of the blend (the default on logs) at hidden size 1024, one thread, beside SAFE-LSTM's step in eager torch, same run.

All read the same synthetic log (11 signals, hidden 1024) and return one score. SAFE-LSTM (LSTM 256, linear) runs as a
cell. hot: steps back to back; paced: one every 10 ms, so that caches cool as they do on a robot.
"""

import argparse
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import torch

from failsight.core.specs import Access, SignalColumn
from failsight.predictors.dataset import LabelledSequence
from failsight.predictors.detector import FitData
from failsight.predictors.detectors import DETECTORS
from failsight.predictors.hazard import SURVIVES, UNKNOWN

HIDDEN, SIGNALS, STEPS = 1024, 11, 50
NAMES = ["chunk_mse", *(f"s{i}" for i in range(1, SIGNALS))]
COLUMNS = tuple(SignalColumn(name=name, unit="1", access=Access.ACTIONS) for name in NAMES)


class TorchSafeLstm:
    """Standardise, LSTM cell, linear."""

    def __init__(self):
        torch.manual_seed(0)
        self._mean, self._scale = torch.zeros(HIDDEN), torch.ones(HIDDEN)
        self._cell, self._head = torch.nn.LSTMCell(HIDDEN, 256), torch.nn.Linear(256, 1)

    def reset(self, task):
        self._state = (torch.zeros(1, 256), torch.zeros(1, 256))

    def update(self, signals, hidden):
        with torch.inference_mode():
            x = (torch.from_numpy(hidden.astype(np.float32)) - self._mean) * self._scale
            self._state = self._cell(x[None], self._state)
            return float(self._head(self._state[0]))


def episodes(count=60):
    rng = np.random.default_rng(0)
    for i in range(count):
        failed = i % 3 == 0
        yield LabelledSequence(
            ticket=i,
            task=f"task{i % 4}",
            condition="none",
            signals=rng.random((STEPS, SIGNALS)).astype(np.float32),
            hidden=rng.standard_normal((STEPS, HIDDEN)).astype(np.float16),
            failed=failed,
            bins=np.full(STEPS, UNKNOWN if failed else SURVIVES),
            kind=-1,
            dimension=np.zeros((STEPS, 0), bool),
            onset=None,
        )


def measure(detectors, train, count, pause_s):
    """Microseconds per step, both detectors taking turns step by step."""
    times = {name: [] for name in detectors}
    for n in range(count):
        s, t = train[n // STEPS % len(train)], n % STEPS
        for name, detector in detectors.items():
            if t == 0:
                detector.reset(s.task)
            if pause_s:
                time.sleep(pause_s)
            began = time.perf_counter()
            detector.update(s.signals[t], s.hidden[t])
            times[name].append((time.perf_counter() - began) * 1e6)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = list(episodes())
    detectors = {"torch": TorchSafeLstm()}
    for name in ("ledger", "blend"):
        began = time.perf_counter()
        detectors[name] = DETECTORS[name].fit(FitData(train, COLUMNS, 0))
        print(f"fit of the {name} on {len(train)} episodes: {time.perf_counter() - began:.2f} s")
    for label, pause in (("hot", 0.0), ("paced 100 Hz", 0.01)):
        times = measure(detectors, train, arguments.steps, pause)
        p50 = {name: np.percentile(values, 50) for name, values in times.items()}
        p99 = {name: np.percentile(values, 99) for name, values in times.items()}
        for name in ("ledger", "blend"):
            print(
                f"{label:13} {name:6} p50 {p50[name]:.0f} us, p99 {p99[name]:.0f} us; SAFE-LSTM in torch p50 "
                f"{p50['torch']:.0f} us; ratio {p50[name] / p50['torch']:.2f}"
            )


if __name__ == "__main__":
    main()
