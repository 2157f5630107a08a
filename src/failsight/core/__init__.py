"""Layer `core`: types, specs, contracts, errors, keyed random numbers (numpy only)."""
