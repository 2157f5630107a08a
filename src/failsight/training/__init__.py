"""Layer `training`: from windows of demonstrations to the weights of a policy."""
