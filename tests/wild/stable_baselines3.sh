#!/usr/bin/env bash
# stable-baselines3's own environment check and its MultiInputPolicy, trained for 64 steps on both Gymnasium ids.
set -euo pipefail
[ -d "$WILD/sb3/stable_baselines3" ] || .venv/bin/pip install --quiet --disable-pip-version-check --no-deps \
  --target "$WILD/sb3" stable-baselines3==2.9.2 cloudpickle
PYTHONPATH="$WILD/sb3${PYTHONPATH:+:$PYTHONPATH}" .venv/bin/python - <<'PYTHON'
import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env

for name in ("Tabletop", "Navigation"):
    env = gymnasium.make(f"failsight.sims.ids:failsight/{name}-v0", observation_names="plain")
    check_env(env, skip_render_check=True)
    model = PPO("MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, device="cpu").learn(64)
    assert model.num_timesteps == 64
    env.close()
print("trained on both")
PYTHON
