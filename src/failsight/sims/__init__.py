"""Layer `sims`: adapters around simulators, one folder each, imported only when used."""

from importlib import import_module

SIMS = {
    "tabletop": "failsight.sims.tabletop.entry:ENTRY",
    "navigation": "failsight.sims.navigation.entry:ENTRY",
    "navigation-2d": "failsight.sims.navigation.entry:PLANAR",
    "metaworld": "failsight.sims.metaworld.entry:ENTRY",
    "libero": "failsight.sims.libero.entry:ENTRY",
}
"""Simulators in this package: name -> its `SimEntry`. Others come from entry points of the group `failsight.sims`."""


def register_envs() -> None:
    """Register the Gymnasium ids of every simulator that has some, without importing the simulator itself."""
    for address in SIMS.values():
        folder = import_module(address.partition(".entry:")[0])
        getattr(folder, "register_envs", lambda: None)()
