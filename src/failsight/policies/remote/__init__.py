"""Policies that run elsewhere and speak openpi's websocket protocol: pi0, OpenVLA in its own environment, our server."""
