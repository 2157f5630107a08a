"""Layer `recipes`: complete named experiments; the only place that names concrete simulators and policies."""
