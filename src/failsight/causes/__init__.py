"""Layer `causes`: what is unusual about an episode, told from what its policy is familiar with (numpy and SciPy only)."""
