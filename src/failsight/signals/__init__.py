"""Layer `signals`: causal numbers per control step, from actions, samples and proprioception (numpy only)."""

SIGNALS = {
    "uncertainty": "failsight.signals.uncertainty:UncertaintySignals",
    "patterns": "failsight.signals.patterns:PatternSignals",
    "sampling": "failsight.signals.sampling:SamplingSignals",
}
"""Registered signal groups: name -> class."""
