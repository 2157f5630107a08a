"""What CONTRIBUTING.md tells an outsider is so."""

import ast
import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from failsight.cli.main import COMMANDS
from failsight.core.sim_entry import SimEntry
from failsight.testing import checks
from failsight.workflows import doctor

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_its_example_of_an_entry_is_one():
    code = TEXT[TEXT.index("       from failsight.core") : TEXT.index("4. Its name")]
    names = {}
    exec(compile(ast.parse(re.sub("^ {7}", "", code, flags=re.M)), "CONTRIBUTING.md", "exec"), names)
    assert isinstance(names["ENTRY"], SimEntry)
    assert set(re.findall(r"^ {11}(\w+)=", code, re.M)) == set(SimEntry.__dataclass_fields__) - {"tasks"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(failsight(?:\.\w+)+)`", TEXT))))
def test_every_name_in_it_exists(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute) or import_module(name)


def test_every_check_path_and_group_in_it_exists():
    for name in re.findall(r"checks\.(\w+)\(", TEXT):
        assert callable(getattr(checks, name)), name
    for path in re.findall(r"`((?:src|tests|design)/[\w./-]*)`", TEXT):
        assert (ROOT / path.replace("NAME", "tabletop")).exists(), path
    for path in re.findall(r"`((?:sims|policies|predictors|interventions|episodes)/[\w./]+\.py)`", TEXT):
        assert (ROOT / "src/failsight" / path).exists(), path
    groups = set(re.findall(r'entry-points\."([\w.]+)"', TEXT))
    assert groups == set(doctor.GROUPS)


def test_one_word_for_a_simulator_in_every_command():
    for name, command in COMMANDS.items():
        assert not {"suite", "simulator", "env"} & set(signature(command).parameters), name
