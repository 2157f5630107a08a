"""Layer `workflows`: what a user asks for, one file per verb; wires simulators, policies, monitors and stores together."""
