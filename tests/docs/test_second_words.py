"""One word per idea: second words stay out of public names, help texts and documents; what still has one is listed.

The lists of today can only shrink: a new violation fails, and so does an entry that nothing violates any more.
"""

import ast
import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from failsight.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "failsight"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/format.md", "docs/summary.md", "docs/glossary.md")
NAMES, TEXTS, KEYS = "names", "texts", "keys"


"""Where to look: public names, help and documents, and keys of files and tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A second word, the one to use, and where the second one may stand."""

    second: str
    """A regular expression for one part of a name, one word of a text, or a key as a whole."""
    right: str
    where: tuple[str, ...] = (NAMES, TEXTS)
    other: tuple[str, ...] = ()
    """Where it means something else, as `place name` or `document`: this stays."""
    today: tuple[str, ...] = ()
    """Where it is still a second word, as `place name`, or `document` once per time."""


PAIRS = (
    Pair(second="rollouts?", right="episode", other=("docs/format.md",)),  # in the names others give their files
    Pair(second="trajector(?:y|ies)", right="episode"),
    Pair(second="timesteps?", right="step"),
    Pair(
        second="orders?",  # a piece of work for a process; a sequence is another thing
        right="ticket",
        where=(NAMES,),
        other=("episodes/formats/mobile_vla.py order", "monitor/senses.py order", "reports/figures.py order"),
    ),
    Pair(
        second="jobs?",
        right="ticket",
        other=("import --help",),  # somebody's column
        today=("workflows/train_many.py Job", "workflows/train_many.py jobs"),
    ),
    Pair(
        second="suites?",
        right="sim",
        other=("README.md",),  # of tests
        today=("core/types.py suite", "episodes/logged.py suite"),
    ),
    Pair(
        second="simulators?",
        right="sim",
        where=(NAMES,),
        today=(
            "runtime/streak.py SIMULATOR_RESET",
            "training/judging.py simulator",
            "workflows/train.py simulator",
        ),
    ),
    Pair(second="drives", right="episodes", today=("workflows/closed_loop.py drives",)),
    Pair(
        second="drive",  # to drive is another thing
        right="episode",
        where=(NAMES,),
        other=(
            "labels/driving.py DriveLabeler",
            "workflows/drive.py drive",
            "workflows/drive.py drive_and_note",
        ),
        today=("workflows/closed_loop.py Drive",),
    ),
    Pair(
        second="experiments?",
        right="recipe",
        today=(
            "recipes/interventions/experiment.py ExperimentResult",
            "recipes/interventions/experiment.py experiment",
            "recipes/interventions/experiment.py run_experiment",
            "recipes/interventions/flags.py ExperimentChoice",
            "recipes/interventions/options.py ExperimentConfig",
            "recipes/interventions/pictures.py picture_experiment",
            "recipes/interventions/summary.py summarise_experiment",
        ),
    ),
    Pair(
        second="stud(?:y|ies)",
        right="recipe",
        today=(
            "docs/glossary.md",
            "recipes/runs.py STUDIES",
            "recipes/studies/failure_head.py FailureHeadStudy",
            "recipes/studies/study.py Study",
            "recipes/studies/study.py study",
            "reports/studies.py studies",
        ),
    ),
    Pair(
        second="datasets?",
        right="data set",
        other=(  # what HDF5 calls its arrays
            "docs/format.md",
            "episodes/formats/hdf5.py find_dataset",
            "episodes/formats/hdf5.py read_dataset",
        ),
        today=("predictors/dataset.py dataset",),
    ),
    Pair(
        second="salus_(?:mlp|log)",  # the predictor's own name is the key
        right="salus-mlp",
        where=(KEYS,),
        today=(
            "predictors/detectors.py salus_mlp",
            "recipes/interventions/summary.py salus_mlp",
            "reports/html.py salus_mlp",
            "workflows/fit_ensemble.py salus_mlp",
        ),
    ),
    Pair(
        second="hazard_ensemble",
        right="recurrent",
        where=(KEYS,),
        today=(
            "evaluation/log_judging.py hazard_ensemble",
            "predictors/detectors.py hazard_ensemble",
            "recipes/bench/summary.py hazard_ensemble",
            "recipes/bench/tabletop.py hazard_ensemble",
        ),
    ),
)
TWICE = (
    *("Arm", "Claim", "Difference", "Episode", "Film", "Fitted", "Judge", "Layout"),
    *("Padded", "Parts", "Rows", "Scene", "Split", "Ticket", "Tracker"),
)
"""Names of public classes that are defined more than once today."""


def parts_of(name: str) -> list[str]:
    """`BestEpisode` and `best_episode` -> best, episode."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")


def names_of(path: Path) -> Iterator[str]:
    """Public names of a file: its own, classes, functions, parameters, fields and constants."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = node.args
            yield from (each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
        if isinstance(node, ast.ClassDef):
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            yield from (each.id for each in fields if isinstance(each, ast.Name))
        if isinstance(node, ast.Module):
            constants = [each.targets[0] for each in node.body if isinstance(each, ast.Assign)]
            constants += [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            yield from (each.id for each in constants if isinstance(each, ast.Name))


def keys_of(path: Path) -> Iterator[str]:
    """Words that stand in the code as texts: keys of files and tables."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.-]+", node.value):
            yield node.value


@cache
def public_keys() -> set[tuple[str, str]]:
    """(place, text) of every key."""
    return {(str(path.relative_to(SOURCE)), key) for path in SOURCE.rglob("*.py") for key in keys_of(path)}


@cache
def public_names() -> set[tuple[str, str]]:
    """(place, name) of every public name."""
    found = ((str(path.relative_to(SOURCE)), name) for path in SOURCE.rglob("*.py") for name in names_of(path))
    return {(place, name) for place, name in found if not name.startswith("_")}


def prose_of(document: str) -> str:
    """A document without code: of an indented or fenced line only its comment counts."""
    text, lines, fenced = (ROOT / document).read_text(), [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        code = fenced or line.startswith("    ")
        lines.append(line.partition("#")[2] if code else line)
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


def help_of(command: str) -> str:
    """What a command says of itself."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return shown.getvalue()


TEXT = {**{name: prose_of(name) for name in DOCUMENTS}, **{f"{name} --help": help_of(name) for name in COMMANDS}}


def found(pair: Pair) -> Counter[str]:
    """Every place where a second word stands."""
    places = Counter[str]()
    if NAMES in pair.where:
        whole = re.compile(rf"(?:.*_)?{pair.second}(?:_.*)?")
        places.update(f"{at} {name}" for at, name in public_names() if whole.fullmatch("_".join(parts_of(name))))
    if KEYS in pair.where:
        places.update(f"{at} {key}" for at, key in public_keys() if re.fullmatch(pair.second, key))
    if TEXTS in pair.where:
        word = re.compile(rf"\b{pair.second}\b", re.I)
        places.update({name: len(word.findall(text)) for name, text in TEXT.items() if word.search(text)})
    return places


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.second)
def test_a_second_word_stays_out(pair):
    places = found(pair)
    for place in pair.other:
        assert places.pop(place, 0), f"{place} has no {pair.second} any more: take it out of `other`"
    listed = Counter(pair.today)
    assert not places - listed, f"write {pair.right} instead of {pair.second} in {dict(places - listed)}"
    assert not listed - places, f"no longer there, take it out of `today`: {dict(listed - places)}"


def test_no_two_public_classes_have_one_name():
    paths = SOURCE.rglob("*.py")
    classes = [each for path in paths for each in ast.parse(path.read_text()).body if isinstance(each, ast.ClassDef)]
    count = Counter(each.name for each in classes if not each.name.startswith("_"))
    assert sorted(name for name, times in count.items() if times > 1) == sorted(TWICE)


def test_a_name_is_judged_part_by_part():
    assert parts_of("BestOrder") == ["best", "order"]
    assert parts_of("RECIPE_ORDERS") == ["recipe", "orders"]
    assert parts_of("recorder") == ["recorder"]
