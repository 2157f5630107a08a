"""What simulators share: the episode around the physics, MuJoCo's pictures and states, Gymnasium's names."""
