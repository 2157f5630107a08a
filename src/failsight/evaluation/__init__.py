"""Layer `evaluation`: metrics with intervals, protocols, paired comparisons (numpy, scipy)."""
