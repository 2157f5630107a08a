"""Layer `sims`: adapters around simulators, one folder each, imported only when used."""

SIMS = {
    "tabletop": "failsight.sims.tabletop.entry:ENTRY",
    "navigation": "failsight.sims.navigation.entry:ENTRY",
    "navigation-2d": "failsight.sims.navigation.entry:PLANAR",
    "metaworld": "failsight.sims.metaworld.entry:ENTRY",
    "libero": "failsight.sims.libero.entry:ENTRY",
}
"""Simulators in this package: name -> its `SimEntry`. Others come from entry points of the group `failsight.sims`."""


def register_envs() -> None:
    """Register every Gymnasium id, without importing a simulator."""
    from failsight.sims.navigation import register_envs as navigation
    from failsight.sims.tabletop import register_envs as tabletop

    tabletop()
    navigation()
