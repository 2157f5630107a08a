"""Meta-World by name, when it is installed: no perturbations, no events, its own scripted experts."""

from failsight.core.sim_entry import SimEntry

ENTRY = SimEntry(
    make="failsight.sims.metaworld.env:MetaWorldEnv",
    operator="failsight.sims.metaworld.env:MetaWorldExpert",
    install="pip install --no-deps metaworld==3.1.1 imageio",
)
