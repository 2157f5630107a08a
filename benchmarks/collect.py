"""Collection against the bare loop: what does recording cost, and do two workers pay?

Rounds alternate between the ways, so that a busy machine slows all of them alike.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from failsight.runtime.collect import record_episode
from failsight.runtime.loop import Loop, run_episode
from failsight.runtime.pool import run_pool
from failsight.workflows.plans import make_plan
from failsight.workflows.wiring import make_bench


def bare(bench, key):
    """Steps and seconds of one episode, nothing kept."""
    trace, wall = run_episode(Loop(bench.sim, bench.policy), key)
    return len(trace.kinds), wall


def recorded(bench, root, ticket):
    """Steps and seconds of one recorded episode, files included."""
    began = time.monotonic()
    meta = record_episode(root, 0.0, bench, ticket)
    return meta.length, time.monotonic() - began


def record_in_worker(root, bench, ticket):
    """For the pool: steps, the moments the episode began and ended, and who ran it."""
    began = time.time()
    meta = record_episode(root, 0.0, bench, ticket)
    return meta.length, began, time.time(), os.getpid()


def pool_rate(root, keys, workers):
    """Steps/s of a pool between the moment every worker has finished its first episode and the moment one runs out.

    Episodes that reach over an edge of that window count in proportion. The first episode, which makes the GL context
    and loads the network, is left out with one worker as with two.
    """
    build = partial(make_bench, "tabletop", "tabletop-strong")
    work = partial(record_in_worker, root)
    rows = [result for _, result in run_pool(build, work, list(enumerate(keys)), workers)]
    by_worker = {}
    for row in rows:
        by_worker.setdefault(row[3], []).append(row[2])
    begin = max(min(ends) for ends in by_worker.values())
    end = min(max(ends) for ends in by_worker.values())
    steps = sum(row[0] * max(0.0, min(row[2], end) - max(row[1], begin)) / (row[2] - row[1]) for row in rows)
    return steps / (end - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    bench = make_bench("tabletop", "tabletop-strong")
    keys = make_plan("tabletop", (), [31], 2, "default")
    run_episode(Loop(bench.sim, bench.policy), keys[0])
    ratios, rates = [], []
    for round_ in range(options.rounds):
        totals = {"bare": [0, 0.0], "collected": [0, 0.0]}
        for number, key in enumerate(keys):
            for name, (steps, wall) in (
                ("bare", bare(bench, key)),
                ("collected", recorded(bench, folder / f"r{round_}", (number, key))),
            ):
                totals[name][0] += steps
                totals[name][1] += wall
        rate = {name: steps / wall for name, (steps, wall) in totals.items()}
        rates.append(rate)
        ratios.append(rate["collected"] / rate["bare"])
        print(
            f"round {round_}: bare {rate['bare']:.0f} steps/s, collected {rate['collected']:.0f}, ratio {ratios[-1]:.3f}"
        )
    bench.sim.close()
    many = make_plan("tabletop", (), [32], 5, "default")
    scale = []
    for round_ in range(max(1, options.rounds - 1)):
        one = pool_rate(folder / f"one{round_}", many, 1)
        two = pool_rate(folder / f"two{round_}", many, 2)
        scale.append(two / one)
        print(f"round {round_}: one worker {one:.0f} steps/s, two {two:.0f}, ratio {scale[-1]:.2f}")
    print(f"\ncollected / bare       median {statistics.median(ratios):.3f}  (target >= 0.9)")
    print(f"two workers / one      median {statistics.median(scale):.2f}  (target >= 1.7)")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
