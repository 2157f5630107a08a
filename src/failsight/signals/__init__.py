"""Layer `signals`: causal numbers per control step, from actions, samples and proprioception (numpy only)."""
