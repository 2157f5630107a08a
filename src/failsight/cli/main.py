"""The `failsight` command. Each function is a subcommand; its docstring is its help."""

from __future__ import annotations

import functools
import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from failsight.cli.console import RichReporter, console, print_table, say
from failsight.cli.flags import PLAIN, about, asks_version, in_groups, version_line
from failsight.cli.prediction import Folder, Name, audit, evaluate, explain, fit, import_log, limits, print_labels
from failsight.cli.settings import expand, keep, running
from failsight.cli.training import cases, demonstrate, failure_tokens, outcomes, serve, train_policy
from failsight.core.errors import FailsightError
from failsight.core.ranges import Count, Names, Number, Reference, Seeds, Share, Trials, Workers, require_arguments
from failsight.recipes.interventions.flags import ExperimentChoice


def run(
    name: Name,
    out: Path | None = None,
    workers: Workers = 2,
    data: Path | None = None,
    detectors: tuple[str, ...] = (),
    protocols: tuple[str, ...] = (),
    splits: int | None = None,
    config: Annotated[ExperimentChoice, tyro.conf.arg(name="")] = ExperimentChoice(),  # noqa: B008 (frozen)
) -> None:
    """Run a recipe from episodes to figures and write its report.

    Args:
        name: demo (the whole idea, 7 minutes on 2 cores), interventions (the same on any simulator and policy),
            tabletop-paper (the larger proof, 12 to 15 minutes), bench-real (detectors on logs of real policies, 25
            minutes), bench-tabletop (detectors on our runs), mobile-vla (train and drive in navigation, 8 minutes),
            lattice-ablation (heads and histories compared, 40 minutes), failure-head (a head that foresees, 35
            minutes) or smoke (every stage, as small as it gets, a minute).
        out: folder for everything it makes (default runs/NAME); an interrupted run goes on there.
        workers: worker processes.
        data: bench-real only: folder with one folder of logs per policy.
        detectors: bench-real only: rows to compare, beside the default and the controls (default: all).
        protocols: bench-real only: ways to split, beside the folds (default: all).
        splits: bench-real only: at most that many splits of each (default: all).
        config: interventions, demo, tabletop-paper and smoke: what the recipe is about.
    """
    from failsight.recipes.bench.options import BenchOptions
    from failsight.recipes.runs import find_recipe, run_recipe

    find_recipe(name)
    folder = out or Path("runs") / name
    reporter = RichReporter()
    try:
        options = BenchOptions(detectors=detectors, protocols=protocols, splits=splits)
        report = run_recipe(name, folder, workers, reporter, data, options, config)
    finally:
        reporter.close()
        keep(folder)
    _print_verdict(folder)
    console.print(f"\nReport   {report}\nFigures  {folder / 'summary.json'}\nNext: open the report in a browser")


def collect(
    out: Path,
    sim: str = "tabletop",
    policy: Reference = "tabletop-strong",
    tasks: Names = (),
    trials: Trials = 10,
    seeds: Seeds = (0,),
    mix: str = "default",
    workers: Workers = 2,
    video: Share = 0.0,
    note: str = "",
    resume: bool = False,
    monitor: Path | None = None,
    arm: str = "",
) -> None:
    """Collect episodes of a policy in a simulator, label them, and store them in LeRobot v3.0 layout.

    Args:
        out: run folder.
        sim: simulator: tabletop, navigation, navigation-2d, metaworld, libero, one of an installed package, or package.module:ENTRY.
        policy: a registered policy, one of an installed package, package.module:Class, or a checkpoint folder.
        tasks: task ids (default: all of the simulator).
        trials: episodes per task and seed.
        seeds: run seeds.
        mix: perturbation mix (clean, default, all) or conditions such as none,push:3,light:2+slippery:4.
        workers: processes that own a simulator and a policy.
        video: share of episodes that are filmed, 0 to 1.
        note: free text kept with the run.
        resume: finish an interrupted run.
        monitor: bundle that judges every tick; its verdicts are stored with the run.
        arm: what acts on its alarms: slow, retry, takeover, safe_stop, ladder (the one that `failsight run interventions`
            left beside the bundle) or package.module:Class (default: nothing, it only watches).
    """
    from failsight.workflows.collect import CollectOptions, collect_run
    from failsight.workflows.plans import make_plan
    from failsight.workflows.progress import succeeding

    keys = make_plan(sim, tasks, seeds, trials, mix)
    reporter = RichReporter()
    reporter.stage(f"collecting {len(keys)} episodes into {out}")
    options = CollectOptions(
        policy=policy, sim=sim, workers=workers, video_share=video, note=note, resume=resume, monitor=monitor, arm=arm
    )
    try:
        collect_run(out, keys, options, succeeding(reporter.count(len(keys))))
    finally:
        reporter.close()
        keep(out)
    print_labels(out)
    console.print(f"run {out}. Next: failsight fit {out}")


def episodes(
    run_folder: Folder,
    failed: bool = False,
    type: str | None = None,
    task: str | None = None,
    condition: str | None = None,
    limit: Count = 40,
) -> None:
    """List and filter the episodes of a run, with the alarms of a judged run and the reason of an errored episode.

    Args:
        run_folder: run folder.
        failed: only failed ones.
        type: only this failure type (collision, drop, miss, timeout).
        task: only tasks whose id contains this.
        condition: only perturbations whose text contains this.
        limit: most rows to print.
    """
    from failsight.workflows.episodes import EpisodeFilter, list_episodes

    wanted = EpisodeFilter(failed=failed, type=type, task=task, condition=condition)
    columns, rows, total = list_episodes(run_folder, wanted)
    print_table(columns, rows[:limit])
    say(f"{len(rows)} of {total} episodes" + (f", first {limit} shown" if len(rows) > limit else ""))
    console.print(f"Next: failsight view {run_folder} --episode N")


def verify(run_folder: Folder) -> None:
    """Compare every file of a run with its checksum, and name what is damaged.

    Exits with 0 when all is well and with 2 when a file is damaged; a run of an older version has no checksums.

    Args:
        run_folder: run folder.
    """
    from failsight.core.errors import EpisodeDataError
    from failsight.episodes.verify import verify_run

    found = verify_run(run_folder)
    for damage in found.damages:
        say(f"damaged  {damage}")
    if not found.has_checksums:
        say("no checksums: sealed by an older version; its tables were read, its videos could not be checked")
    if found.damages:
        raise EpisodeDataError(f"{len(found.damages)} of {found.files} files of {run_folder} are damaged.")
    say(f"{found.files} files, all as they were sealed" if found.has_checksums else f"{found.files} files read")


def view(
    run_folder: Folder, episode: Number, out: Path | None = None, strip: bool = False, bundle: Path | None = None
) -> None:
    """Write an annotated video (or picture strip) of one episode, run again from its key.

    Args:
        run_folder: run folder.
        episode: episode number.
        out: file to write (default: beside the run).
        strip: a PNG strip instead of a video.
        bundle: show what this monitor says of every step: its curve, threshold and alarm below the pictures.
    """
    from failsight.workflows.view import view_episode

    console.print(f"wrote {view_episode(run_folder, episode, out, strip, bundle)}")


def label(run_folder: Folder, sheet: bool = False) -> None:
    """Label a run from its events and print the table of types per task.

    Args:
        run_folder: run folder.
        sheet: also write a picture sheet of random examples per type, for a person to check.
    """
    from failsight.episodes.run import Run
    from failsight.labels.table import read_labels
    from failsight.workflows.view import example_sheet

    print_labels(run_folder)
    if sheet:
        store = Run(run_folder)
        console.print(f"wrote {example_sheet(store, read_labels(store))}")
    console.print(f"Next: failsight fit {run_folder}")


def report(folder: Folder) -> None:
    """Write report.html from summary.json and pictures/ of a recipe's folder.

    Args:
        folder: folder of a recipe.
    """
    from failsight.reports.html import write_report

    console.print(f"wrote {write_report(folder)}")


def doctor() -> None:
    """Check rendering, threads and packages of this machine."""
    from failsight.workflows.doctor import diagnose

    checks = diagnose()
    print_table(("check", "result"), [(check.name, check.result) for check in checks])
    failed = [check for check in checks if check.advice]
    for check in failed:
        say((check.name, "red"), f": {check.advice}")
    if failed:
        raise FailsightError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(c.name for c in failed)}.")


def _print_verdict(folder: Path) -> None:
    from failsight.reports.html import read_summary, readable

    with readable(folder / "summary.json"):
        _print_summary(read_summary(folder))


def _print_summary(summary: dict[str, Any]) -> None:
    from failsight.reports.detectors import remarks, table_rows
    from failsight.reports.verdict import claims

    console.print()
    if summary.get("kind") == "study":
        _print_study(summary)
        return
    if summary.get("kind") == "bench":
        for title, columns, rows in table_rows(summary):
            half = (len(columns) + 1) // 2
            for part, head in ((slice(1, half), title), (slice(half, None), f"{title} (continued)")):
                short = [(row[0][:44], *row[part]) for row in rows]
                print_table((columns[0], *columns[part]), short, head)
        for line in remarks(summary):
            console.print(line, soft_wrap=True)
        return
    for claim in claims(summary):
        _print_claim(claim.found, claim.title, claim.sentence)


def _print_study(summary: dict[str, Any]) -> None:
    from failsight.reports.studies import table_rows

    for title, columns, rows in table_rows(summary):
        print_table(columns, rows, title)
    for line in summary["remarks"]:
        console.print(line, soft_wrap=True)
    for claim in summary["claims"]:
        _print_claim("shown" if claim["shown"] else "not shown", claim["title"], claim["sentence"])


def _print_claim(found: str, title: str, sentence: str) -> None:
    color = {"shown": "green", "not shown": "red", "contradicted": "red"}.get(found, "yellow")
    tag = (f"{found:16}", color)
    say(tag, "  ", (f"{title}.", "bold"), f" {sentence}")


COMMANDS: dict[str, Any] = {
    "run": run,
    "collect": collect,
    "import": import_log,
    "episodes": episodes,
    "verify": verify,
    "view": view,
    "label": label,
    "fit": fit,
    "evaluate": evaluate,
    "audit": audit,
    "explain": explain,
    "limits": limits,
    "report": report,
    "demonstrate": demonstrate,
    "train-policy": train_policy,
    "cases": cases,
    "failure-tokens": failure_tokens,
    "serve": serve,
    "outcomes": outcomes,
    "doctor": doctor,
}


INTERRUPTED = {
    "run": "the same command goes on where it stopped",
    "collect": "the same command with --resume goes on where it stopped",
    "demonstrate": "the same command goes on where it stopped",
    "train-policy": "the same command goes on from the last checkpoint",
    "serve": "the server has stopped",
}
"""What an interrupt leaves behind, by command; all others start afresh."""


def main(arguments: Annotated[list[str] | None, tyro.conf.Suppress] = None) -> None:
    """Entry point; a deliberate refusal prints one sentence and exits with code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are not text
    if asks_version(given):
        console.print(version_line())
        return
    try:
        with PLAIN:
            tyro.extras.subcommand_cli_from_dict(
                {name: _checked(name, COMMANDS[name]) for name in in_groups(COMMANDS)},
                prog="failsight",
                description=about(),
                args=expand(_with_format(given), COMMANDS),
            )
    except FailsightError as error:
        _refuse(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing to flush to
        sys.exit(141)
    except MemoryError:
        _refuse("Out of memory; use fewer --workers or a smaller run.")
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _refuse(
            f"The system refused: {error.strerror or error}{place}. Check the path, its permissions and free space."
        )
    except KeyboardInterrupt:
        what_next = INTERRUPTED.get(given[0] if given else "", "start the same command again")
        say(f"\ninterrupted; {what_next}")
        sys.exit(130)


def _with_format(given: list[str]) -> list[str]:
    """`failsight import actprobe LOGS`: a format may also stand before the path."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), given))
    return (
        ["import", words[2], "--format", words[1], *given[3:]] if words[:1] == ["import"] and len(words) == 3 else given
    )


def _refuse(sentence: str) -> NoReturn:
    say(("failsight:", "red"), f" {sentence}")
    sys.exit(2)


def _checked(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command with its arguments held to the ranges of its signature."""

    @functools.wraps(command)
    def call(**arguments: Any) -> None:
        require_arguments(command, arguments)
        running(name, arguments)
        command(**arguments)

    return call
