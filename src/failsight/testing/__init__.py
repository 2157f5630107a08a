"""Layer `testing`: conformance checks every adapter must pass, and small fakes."""
