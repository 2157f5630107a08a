"""The whole proof: collect, fit, gate, test, forks; its figures and pictures."""
