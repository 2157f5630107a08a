"""Layer `runtime`: the loop sim x policy x monitor x intervention, recording, worker processes."""
