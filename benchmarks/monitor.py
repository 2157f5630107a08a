"""One monitor step at hidden size 1024, one thread: ours in NumPy beside the same network in eager torch.

hot: steps back to back. paced: one step every 10 ms, so that caches cool as they do on a robot. Both implementations
take turns in the same process; signals and trigger are the same code in both.
"""

import argparse
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import torch

from failsight.core.specs import ObservationSpec
from failsight.core.types import FAILURE_TYPES, Risk, Task
from failsight.monitor.monitor import RiskMonitor
from failsight.monitor.senses import Senses, Usual
from failsight.monitor.thresholds import Thresholds
from failsight.monitor.trigger import TriggerRule
from failsight.predictors.features import Whitening
from failsight.predictors.fit_recurrent import Member, _export
from failsight.predictors.hazard import BINS
from failsight.predictors.recurrent import RecurrentPredictor
from failsight.signals.bank import SIGNAL_NAMES, SignalBank
from failsight.sims.tabletop.env import ACTION_SPEC, STATE_NAMES
from failsight.testing.checks import make_steps

HIDDEN, MEMBERS, UNITS = 1024, 5, 64
TASK = Task(id="t", suite="s", instruction="", horizon=160)


class TorchPredictor:
    """The same ensemble in eager torch, with the cell (a whole-sequence GRU called for one step is slower)."""

    def __init__(self, members, whitening):
        self._members, self._whitening = members, whitening

    def reset(self, task):
        self._memory = [torch.zeros(1, UNITS) for _ in self._members]

    def update(self, signals, hidden):
        x = torch.from_numpy(self._whitening.apply(signals, hidden))[None]
        outs = []
        with torch.inference_mode():
            for i, member in enumerate(self._members):
                gru = member.gru
                weights = (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0)
                self._memory[i] = torch.gru_cell(torch.relu(member.enter(x)), self._memory[i], *weights)
                outs.append(member.head(self._memory[i])[0])
            out = torch.stack(outs)
            hazard = torch.sigmoid(out[:, :BINS])
            alive = torch.cumprod(1 - hazard, 1)
            lost = hazard * torch.cat([torch.ones(len(out), 1), alive[:, :-1]], 1)
            kinds = torch.softmax(out[:, BINS : BINS + len(FAILURE_TYPES)], 1).mean(0)
            p_fail = float(lost.sum(1).mean())
            return Risk(
                p_fail=p_fail, type=kinds.numpy() * p_fail, dimension=torch.sigmoid(out[:, BINS + 4 :]).mean(0).numpy()
            )


def make_monitors():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    members = [Member(len(SIGNAL_NAMES) + HIDDEN, UNITS, 7, 0.0).eval() for _ in range(MEMBERS)]
    rng = np.random.default_rng(0)
    whitening = Whitening.fit(rng.random((100, len(SIGNAL_NAMES))), rng.standard_normal((100, HIDDEN)))
    observations = ObservationSpec(state=STATE_NAMES, cameras=())
    predictors = {"numpy": RecurrentPredictor(_export(members, whitening)), "torch": TorchPredictor(members, whitening)}
    usual = Usual(always=(True,) * len(SIGNAL_NAMES), stuck_after=(400,) * len(SIGNAL_NAMES))
    parts = {name: (p, SignalBank(ACTION_SPEC, observations)) for name, p in predictors.items()}
    rule, limits = TriggerRule(), Thresholds.fixed(2.0)
    return {
        name: RiskMonitor(predictor, bank, rule, limits, senses=Senses(SIGNAL_NAMES, ACTION_SPEC, usual))
        for name, (predictor, bank) in parts.items()
    }


def measure(monitors, steps, count, pause_s):
    """Seconds per step; the implementations take turns step by step."""
    times = {name: [] for name in monitors}
    for t in range(count):
        for name, monitor in monitors.items():
            if t % len(steps) == 0:
                monitor.reset(TASK)
            if pause_s:
                time.sleep(pause_s)
            began = time.perf_counter()
            monitor.step(steps[t % len(steps)])
            times[name].append(time.perf_counter() - began)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    monitors, steps = make_monitors(), make_steps(300, 7, len(STATE_NAMES), hidden=HIDDEN)
    risks = {}
    for name, monitor in monitors.items():
        monitor.reset(TASK)
        risks[name] = np.array([monitor.step(s).risk.p_fail for s in steps[:100]])
    print(f"largest difference of p_fail: {np.abs(risks['numpy'] - risks['torch']).max():.1e}")
    print(f"{'':8}{'':8}{'p50 us':>9}{'p99 us':>9}{'p50 ratio':>11}")
    for mode, count, pause in (("hot", options.steps, 0.0), ("paced", options.steps // 5, 0.01)):
        times = measure(monitors, steps, count, pause)
        base = np.median(times["torch"])
        for name, values in times.items():
            p50, p99 = np.percentile(np.array(values) * 1e6, [50, 99])
            print(f"{mode:8}{name:8}{p50:9.0f}{p99:9.0f}{np.median(values) / base:11.2f}")


if __name__ == "__main__":
    main()
