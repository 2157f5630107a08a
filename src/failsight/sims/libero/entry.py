"""LIBERO by name, when it is installed: no perturbations, no events, nobody who could take over."""

from failsight.core.sim_entry import SimEntry

ENTRY = SimEntry(make="failsight.sims.libero.env:LiberoEnv", install="pip install 'failsight[libero]'")
