"""Gymnasium's own checks, ids found without a call of ours, and names other libraries can work with."""

import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from torch import nn

from failsight.core.errors import UnknownNameError
from failsight.core.registry import load
from failsight.sims import register_envs

IDS = ("failsight/Tabletop-v0", "failsight/TabletopPickRedCubeLeft-v0", "failsight/Navigation-v0")


def test_the_entry_point_registers_every_id():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    load(project["entry-points"]["gymnasium.envs"]["__root__"])()
    register_envs()
    assert set(IDS) <= set(gymnasium.registry)


def test_gymnasium_finds_the_ids_through_the_module():
    code = "import gymnasium; gymnasium.make('failsight.sims.ids:failsight/Navigation-v0').reset(seed=1)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", IDS)
def test_names_without_dots_name_network_modules(name):
    register_envs()
    env = gymnasium.make(name, observation_names="plain")
    assert not any("." in key for key in env.observation_space.spaces)
    nn.ModuleDict({key: nn.Identity() for key in env.observation_space.spaces})
    check_env(env.unwrapped, skip_render_check=True)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    observation, _, _, _, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert info["is_success"] == info["success"] == False  # noqa: E712 (False, and nothing that only looks like it)
    original = env.unwrapped.observe()
    assert (original["observation.state"] == observation["observation_state"]).all()
    env.close()


def test_other_naming_is_refused():
    register_envs()
    with pytest.raises(UnknownNameError, match="plain"):
        gymnasium.make(IDS[0], observation_names="dotless")
