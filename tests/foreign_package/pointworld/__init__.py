"""A package that failsight has never heard of: a simulator, a policy and a detector of its own."""
