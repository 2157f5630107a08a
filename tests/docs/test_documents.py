import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import failsight
from failsight.cli.main import COMMANDS
from failsight.core.registry import load

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "failsight"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
ROWS = re.findall(r"^\| ([a-z_ ]+) \| (.+?) \| `([\w.]+)` \|$", GLOSSARY, re.M)


@pytest.mark.parametrize("word", [row[0] for row in ROWS])
def test_every_word_of_the_glossary_is_in_the_code(word):
    module, _, attribute = next(row[2] for row in ROWS if row[0] == word).rpartition(".")
    assert load(f"failsight.{module}:{attribute}") is not None


@pytest.mark.parametrize("synonym", ["rollout", "trajectory", "timestep", "demo_episode", "alarm_threshold"])
def test_one_word_per_idea(synonym):
    """Words that would name an idea of the glossary a second time stay out of names."""
    for path in SOURCE.rglob("*.py"):
        names = re.findall(rf"\b(?:def|class) \w*{synonym}\w*", path.read_text(), re.I)
        assert not names, f"{path.name}: {names}"


def test_the_glossary_has_no_word_twice():
    words = [row[0] for row in ROWS]
    assert len(words) == len(set(words)) >= 25


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    for command in re.findall(r"(?:^    |`)failsight ([a-z-]+)", readme, re.M):
        assert command in COMMANDS, f"README mentions `failsight {command}`"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make ([a-z]+)", readme, re.M):
        assert f"\n{target}:" in makefile


def test_readme_paths_exist():
    for path in re.findall(r"`((?:docs|design|benchmarks)/[\w./-]*)`", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists()


def test_every_package_names_its_layer():
    for init in SOURCE.glob("*/__init__.py"):
        assert f"Layer `{init.parent.name}`" in init.read_text(), init


def test_files_and_functions_stay_small():
    import ast

    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path.name} has over 400 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_importing_failsight_is_light():
    code = "import sys, failsight, failsight.core.types; assert not {'torch', 'mujoco', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctests():
    import doctest

    names = ["core.rng", "core.types", "core.state", "core.pictures", "predictors.hazard", "evaluation.intervals"]
    names += ["evaluation.detection", "evaluation.paired", "reports.verdict"]
    names += ["policies.vla.frames", "training.schedule", "policies.vla.discrete"]
    names += ["policies.vla.words", "episodes.formats.lerobot", "core.foreign"]
    tried = 0
    for name in names:
        result = doctest.testmod(importlib.import_module(f"failsight.{name}"))
        assert result.failed == 0, name
        tried += result.attempted
    assert tried >= 9


def test_the_slurm_script_is_whole_bash():
    subprocess.run(["bash", "-n", str(ROOT / "docs" / "train_slurm.sh")], check=True)


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert version("failsight") == failsight.__version__
