"""Subcommands around training: demonstrations, policies, their cases, their failure tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from failsight.cli.console import RichReporter, console, print_table, say
from failsight.cli.prediction import Folder
from failsight.cli.settings import keep
from failsight.core.ranges import Between, Count, Names, Number, Port, Seed, Trials, Workers
from failsight.training.config import TrainConfig

if TYPE_CHECKING:
    from failsight.episodes.run import Run


def demonstrate(
    out: Folder,
    sim: str = "navigation",
    episodes: Count = 250,
    tasks: Names = (),
    seed: Seed = 0,
    workers: Workers = 2,
) -> None:
    """Record a simulator's expert to train on; an interrupted recording goes on.

    Args:
        out: folder of Mobile-VLA HDF5 files (navigation), or of mapped demonstrations.
        sim: simulator whose expert acts: navigation (turns), navigation-2d (slides), tabletop, or one of a package.
        episodes: how many, 250 to 5,000 as a rule.
        tasks: task ids (default: all).
        seed: of layouts and noise.
        workers: worker processes.
    """
    from failsight.recipes.demonstrate.recordings import demonstrate as record

    reporter = RichReporter()
    reporter.stage(f"recording {episodes} episodes into {out}")
    tick = reporter.count(episodes)
    try:
        dropped = record(sim, out, episodes, seed=seed, tasks=tasks, workers=workers, progress=lambda done: tick(""))
    finally:
        reporter.close()
        keep(out)
    console.print(f"{episodes} recordings in {out}; {dropped} more failed and were dropped.")
    console.print(f"Next: failsight train-policy --data {out}")


def train_policy(
    data: Path | None = None,
    out: Path | None = None,
    recipe: str = "",
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig(),  # noqa: B008 (frozen)
    sim: str = "",
    trials: Trials = 10,
    against: str = "",
    workers: Workers = 2,
) -> None:
    """Train a policy on any data, in any cell of the lattice; or the shipped policies' cell anew with --recipe.

    Args:
        data: a run, a LeRobot v3 folder, a folder of Mobile-VLA HDF5 files, or a folder of mapped demonstrations.
        out: folder (default runs/train-NAME); an interrupted training goes on there.
        recipe: tabletop (the strong policy), tabletop-weak (stopped early), or tabletop-smoke; instead of --data.
        config: the cell and its dials.
        sim: drive the result there (tabletop, navigation, navigation-2d).
        trials: closed-loop episodes per task.
        against: a second --backbone.source, or `scratch`; both are trained on the same data and compared (A/B).
        workers: worker processes of the simulator.
    """
    from failsight.core.errors import FailsightError

    if data is None and not recipe:
        raise FailsightError(
            "Say what to train on: --data FOLDER (a run, a LeRobot folder, recordings), or --recipe tabletop, which makes "
            "its own demonstrations and trains the shipped policy anew (about ten minutes)."
        )
    if data is None:
        _remake(recipe, out)
        return
    if recipe:
        raise FailsightError("Give --data or --recipe, not both.")
    folder = out or Path("runs") / f"train-{data.resolve().name}"
    if against:
        _compare(data, folder, config, sim, trials, against, workers)
    else:
        _train_one(data, folder, config, sim, trials, workers)


def _train_one(data: Path, folder: Path, config: TrainConfig, sim: str, trials: int, workers: int) -> None:
    from functools import partial

    from failsight.workflows.drive import drive_and_note, require_drivable, require_sim, success_in
    from failsight.workflows.train import settle_choice, train

    require_sim(sim)
    config = settle_choice(config, bool(sim))
    reporter = RichReporter()
    reporter.stage(f"training in {folder}")
    tick = reporter.count(config.fit.steps)

    def progress(step: int, values: object) -> None:
        if isinstance(values, dict) and "total" in values:
            tick(f"loss {values['total']:.4f}  {values['samples_per_s']:.0f}/s")
        elif isinstance(values, dict):
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            reporter.note(f"step {step}: {text}")

    try:
        judge = success_in(sim, trials, workers) if sim and config.fit.best_by == "success" else None
        check = partial(require_drivable, sim)
        fitted = train(data, config, folder, progress=progress, success=judge, check=check, note=reporter.note)
        by = "the last" if config.fit.best_by == "last" else f"{config.fit.best_by} {fitted.best_value:.4g}"
        console.print(f"checkpoint {fitted.best} (step {fitted.best_step}, {by})")
        if sim:
            reporter.stage(f"driving in {sim}")
            print_table(*drive_and_note(fitted.best, folder, sim, trials, workers))
    finally:
        reporter.close()
        keep(folder)
    console.print(f"Next: failsight cases {folder.parent}")


def _compare(data: Path, folder: Path, config: TrainConfig, sim: str, trials: int, against: str, workers: int) -> None:
    from failsight.core.errors import FailsightError
    from failsight.workflows.drive import compare_cases

    if not sim:
        raise FailsightError("An A/B of two initialisations is decided in a simulator; name one with --sim.")
    sources = {"a": config.backbone.source, "b": "" if against == "scratch" else against}
    for name, source in sources.items():
        say((name, "bold"), f": initialised from {source or 'scratch'}")
        chosen = replace(config, backbone=replace(config.backbone, source=source))
        _train_one(data, folder / name, chosen, sim, trials, workers)
    console.print(compare_cases(folder / "a", folder / "b"))


def _remake(recipe: str, out: Path | None) -> None:
    from failsight.recipes.shipped_policy import find_train_recipe
    from failsight.recipes.shipped_policy import train_policy as train

    chosen = find_train_recipe(recipe)
    folder = out or Path("runs") / f"train-{recipe}"
    reporter = RichReporter()
    reporter.stage(f"training {recipe} in {folder}")
    tick = reporter.count(chosen.episodes)

    def progress(step: int, values: Mapping[str, float]) -> None:
        if step % 500 == 0:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            reporter.note(f"step {step} of {chosen.last_step}: {text}")

    try:
        checkpoint = train(chosen, folder, lambda count: tick("demonstrations"), progress)
    finally:
        reporter.close()
    console.print(f"checkpoint {checkpoint}. Next: failsight collect --policy {checkpoint} --out RUN")


def cases(folder: Folder = Path("runs")) -> None:
    """Compare trained policies: backbone, initialisation, head, history, data, loss, closed-loop success, state.

    Args:
        folder: every training below it is a row.
    """
    from failsight.workflows.cases import table_of_cases

    print_table(*table_of_cases(folder), wrap=True)


def serve(
    checkpoint: Annotated[str, tyro.conf.Positional],
    host: str = "127.0.0.1",
    port: Port = 8000,
    outcomes: Path | None = None,
    ask: bool = False,
    camera: tuple[str, ...] = (),
    token: str = "",
) -> None:
    """Serve a policy in openpi's websocket protocol, to LIBERO, SimplerEnv, CALVIN clients or a real robot.

    Args:
        checkpoint: a checkpoint folder, or a registered policy.
        host: address to listen on; one that other machines can reach needs a token.
        port: port to listen on.
        outcomes: write how every episode ended to this JSON lines file.
        ask: ask at this terminal how an episode ended (a person watches the robot).
        camera: our camera name = the client's key, for example agent=observation/image.
        token: what clients must send as "Authorization: Bearer TOKEN" (default: $FAILSIGHT_TOKEN, if set).
    """
    import asyncio
    import os

    from failsight.workflows.serve import key_table, make_server, require_address

    def question(text: str) -> str:
        answer = console.input(f"{text}: did it succeed? (y/n, enter for unknown) ", markup=False).strip().lower()
        return {"y": "success", "n": "failure"}.get(answer[:1], "unknown")

    def ready(found: int) -> None:
        console.print(f"serving {checkpoint} at ws://{host}:{found}", markup=False, soft_wrap=True)

    secret = token or os.environ.get("FAILSIGHT_TOKEN", "").strip()
    require_address(host, port, secret)
    server = make_server(checkpoint, key_table(camera), outcomes, question if ask else None, secret)
    asyncio.run(server.run(host, port, ready))


def outcomes(file: Folder, chain: Number = 0) -> None:
    """Success per instruction from a server's outcome file; with --chain, CALVIN's figures over chains of that length.

    Args:
        file: JSON lines written by `failsight serve --outcomes`.
        chain: tasks per chain (CALVIN: 5).
    """
    from failsight.workflows.serve import outcome_table

    print_table(*outcome_table(file, chain))


def failure_tokens(
    action: Annotated[Literal["create", "set", "check", "export", "import"], tyro.conf.Positional],
    run_folder: Folder,
    folder: Path | None = None,
    episode: Number | None = None,
    first: Number | None = None,
    last: Number | None = None,
    value: Annotated[int, Between(-1, 1)] = 1,
    horizon_s: Annotated[float, Between(0, 3600)] = 2.0,
) -> None:
    """Failure tokens of a run: what a failure head is trained to say, one number per frame.

    Args:
        action: create (from labels), set (a range by hand), check, export, or import (`.npy`, one per episode).
        run_folder: run folder.
        folder: where to export to or import from.
        episode: set: which episode (must be given, like first and last).
        first: set: first frame.
        last: set: last frame.
        value: set: 1 failing, 0 not, -1 unknown.
        horizon_s: create: failing from so long before the onset.
    """
    from failsight.core.errors import FailsightError
    from failsight.episodes.run import Run
    from failsight.labels import failure_tokens as tokens

    run = Run(run_folder)
    if action == "create":
        _create_tokens(run, horizon_s)
    elif action == "set":
        if episode is None or first is None or last is None:
            raise FailsightError("Say which frames to set: --episode N --first A --last B (and --value 1, 0 or -1).")
        tokens.set_range(run, episode, first, last, value)
        console.print(f"episode {episode}: frames {first} to {last} are {value}")
    elif action == "check":
        problems = tokens.check(run)
        for line in problems:
            console.print(line)
        if problems:
            raise FailsightError(f"{len(problems)} of {len(run.episodes)} episodes need attention.")
        console.print("all episodes have whole tokens that agree with their outcome")
    elif folder is None:
        raise FailsightError(f"Say where to {action}: --folder FOLDER.")
    elif action == "export":
        console.print(f"{tokens.export(run, folder)} files in {folder}")
    else:
        console.print(f"{tokens.import_tokens(run, folder)} episodes taken from {folder}")


def _create_tokens(run: Run, horizon_s: float) -> None:
    from failsight.labels.failure_tokens import create, folder_of
    from failsight.labels.table import read_labels

    labels = read_labels(run)
    console.print(f"tokens of {create(run, labels, horizon_s)} episodes in {folder_of(run)}")
    unknown = sum(not label.success and label.onset is None for label in labels.values())
    if unknown:
        say(
            ("careful", "yellow"),
            f"  of {unknown} failed episodes nobody knows when they were lost: all their frames are unknown (-1) and teach "
            "nothing; say when with: failsight failure-tokens set",
        )
    console.print(f"Next: failsight failure-tokens check {run.root}")
