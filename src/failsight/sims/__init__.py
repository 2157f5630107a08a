"""Layer `sims`: adapters around simulators, one folder each, imported only when used."""

SIMS = {"tabletop": "failsight.sims.tabletop.env:TabletopEnv"}
"""Registered simulators: name -> class."""

OPERATORS = {"tabletop": "failsight.sims.tabletop.expert:TabletopOperator"}
"""The scripted expert of each simulator, in the place of the person who is called."""
