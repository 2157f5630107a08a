"""Layer `recipes`: complete named experiments."""
