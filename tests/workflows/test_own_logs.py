"""Twelve foreign files, one per form: imported, fitted and reported without editing anything.

How each fixture came about: `guessed` (names of our choosing, as the form allows), `from source` (keys and shapes that the
published reader or writer uses). None was written by the original program.
"""

import csv
import json
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import write_json_log

from failsight.cli.main import main

COUNT, STEPS = 60, 12
LIBERO = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "dgripper")


def episodes():
    """(number, task, success, one signal (T,), hidden (T, 4), states (T, 3), actions (T, 7)); the failing ones shake."""
    for i in range(COUNT):
        rng, success = np.random.default_rng(i), i % 3 > 0
        late = (np.arange(STEPS) > 5)[:, None] * (0.0 if success else 1.0)
        actions = rng.normal(0, 0.1, (STEPS, 7)) + late * rng.normal(0, 1, (STEPS, 7))
        hidden, states = rng.normal(size=(STEPS, 4)) + late, np.cumsum(actions[:, :3], axis=0)
        yield i, f"task_{i % 2}", success, rng.normal(1, 0.1, STEPS) + late[:, 0], hidden, states, actions


def actprobe_lines(folder):  # from source
    write_json_log(folder, count=COUNT)


def actprobe_npz(folder):  # from source
    many = list(episodes())
    np.savez(
        folder / "Open.npz",
        signals10=np.concatenate([np.tile(e[3][:, None], (1, 10)) for e in many]).astype(np.float32),
        hidden=np.concatenate([e[4] for e in many]).astype(np.float16),
        length=np.full(COUNT, STEPS),
        success=np.array([e[2] for e in many]),
        episode_id=np.arange(COUNT),
        seed=np.arange(COUNT),
        instruction=np.array(["open it"] * COUNT),
    )


def csv_steps(folder):  # guessed
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "episode", "success", "step", "entropy"])
        for i, task, success, entropy, *_ in episodes():
            writer.writerows([task, i, success, t, float(entropy[t])] for t in range(STEPS))


def json_episodes(folder):  # guessed
    with (folder / "log.jsonl").open("w") as file:
        for i, task, success, entropy, hidden, *_ in episodes():
            record = {"task": task, "episode": i, "success": success, "signals": entropy.tolist()}
            file.write(json.dumps({**record, "hidden": hidden.tolist()}) + "\n")


def npz_episodes(folder):  # guessed
    for i, task, success, _, hidden, states, actions in episodes():
        np.savez(
            folder / f"{i}.npz", task=task, episode=i, success=success, hidden=hidden, state=states, action=actions
        )


def npz_of_openvla(folder):  # from source (its names), guessed (what lies in the file)
    for i, task, success, entropy, *_, actions in episodes():
        np.savez(folder / f"2025--episode={i}--success={success}--task={task}.npz", action=actions, signals=entropy)


def parquet_steps(folder):  # guessed
    rows = [(task, i, ok, t, float(e[t])) for i, task, ok, e, *_ in episodes() for t in range(STEPS)]
    names = ["task", "episode", "success", "step", "entropy"]
    pd.DataFrame(rows, columns=names).to_parquet(folder / "log.parquet")


def hdf5_of_robomimic(folder):  # from source (its layout)
    with h5py.File(folder / "demo.hdf5", "w") as file:
        for i, _, success, _, _, states, actions in episodes():
            group = file.create_group(f"data/demo_{i}")
            group["actions"], group["obs/robot0_eef_pos"] = actions, states
            group["dones"] = [0] * (STEPS - 1) + [int(success)]


def hdf5_arrays(folder):  # guessed
    rows = [(i, ok, t, float(e[t])) for i, _, ok, e, *_ in episodes() for t in range(STEPS)]
    with h5py.File(folder / "log.h5", "w") as file:
        for name, column in zip(("episode", "success", "step", "entropy"), zip(*rows, strict=True), strict=True):
            file[name] = column


def mist(folder):  # from source
    kept = {True: [], False: []}
    for i, _, success, _, hidden, states, actions in episodes():
        record = {"actions": list(actions), "features": list(hidden), "robot_states": [{"eef_pos": s} for s in states]}
        kept[success].append({**record, "success": success, "instruction": "do it", "task_id": i % 2})
    for success, records in kept.items():
        (folder / f"{'success' if success else 'failure'}_rollouts.pkl").write_bytes(pickle.dumps(records))


def safe(folder):  # from source
    for i, task, success, entropy, hidden, _, actions in episodes():
        name = folder / f"{task.replace('_', '')}--ep{i}--succ{int(success)}"
        columns = {f"action/{n}": actions[:, k] for k, n in enumerate(LIBERO)} | {"action/token_0_entropy": entropy}
        pd.DataFrame(columns).to_csv(name.with_suffix(".csv"), index=False)
        name.with_suffix(".pkl").write_bytes(
            pickle.dumps({"hidden_states": hidden[:, None], "episode_success": success})
        )


def fiper(folder):  # from source
    for i, _, success, _, hidden, states, actions in episodes():
        place = folder / "rollouts" / ("calibration" if success and i < 30 else "test")
        place.mkdir(parents=True, exist_ok=True)
        steps = [
            {"obs_embedding": hidden[t], "action": actions[t : t + 1], "agent_pos": states[t]} for t in range(STEPS)
        ]
        value = {"metadata": {}, "rollout": steps}
        (place / f"episode_{'s' if success else 'f'}_{i}.pkl").write_bytes(pickle.dumps(value))


FORMS = {
    **dict.fromkeys((actprobe_lines, actprobe_npz, csv_steps, json_episodes, npz_episodes, npz_of_openvla), ""),
    **dict.fromkeys((parquet_steps, hdf5_arrays, mist, safe, fiper), ""),
    hdf5_of_robomimic: "success=dones,action=actions,state=obs/robot0_eef_pos",
}


QUICK = (csv_steps,)
"""Fitted and reported at every push, in a quarter of a minute; the others with the slow tests."""
CASES = [pytest.param(write, marks=[] if write in QUICK else [pytest.mark.slow], id=write.__name__) for write in FORMS]


@pytest.mark.parametrize("write", CASES)
def test_a_foreign_file_becomes_a_report(tmp_path, write, capsys):
    (tmp_path / "log").mkdir()
    write(tmp_path / "log")
    run = str(tmp_path / "run")
    main(["import", str(tmp_path / "log"), "--out", run, *(["--map", FORMS[write]] if FORMS[write] else [])])
    assert f"{COUNT} episodes, " in capsys.readouterr().out
    main(["fit", run, "--detector", "ledger", "--alpha", "0.2"])
    main(["report", run])
    assert "failures" in (tmp_path / "run/report.html").read_text()
