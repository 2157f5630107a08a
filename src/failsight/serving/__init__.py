"""Layer `serving`: policies for others to drive over a wire."""
