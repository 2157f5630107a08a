"""Layer `sims`: adapters around simulators, one folder each, imported only when used."""

SIMS = {
    "tabletop": "failsight.sims.tabletop.env:TabletopEnv",
    "navigation": "failsight.sims.navigation.env:NavigationEnv",
    "navigation-2d": "failsight.sims.navigation.env:planar",
    "metaworld": "failsight.sims.metaworld.env:MetaWorldEnv",
    "libero": "failsight.sims.libero.env:LiberoEnv",
}
"""Registered simulators: name -> class or function that builds one."""

OPERATORS = {
    "tabletop": "failsight.sims.tabletop.expert:TabletopOperator",
    "navigation": "failsight.sims.navigation.expert:NavigationExpert",
    "navigation-2d": "failsight.sims.navigation.expert:NavigationExpert",
    "metaworld": "failsight.sims.metaworld.env:MetaWorldExpert",
}
"""The scripted expert of each simulator, in the place of the person who is called."""


def register_envs() -> None:
    """Register every Gymnasium id, without importing a simulator."""
    from failsight.sims.navigation import register_envs as navigation
    from failsight.sims.tabletop import register_envs as tabletop

    tabletop()
    navigation()
