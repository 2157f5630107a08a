"""Keyed random numbers: every draw is a function of what it is for, never of how many draws came before.

An extra policy call or a longer episode in one arm therefore cannot shift the noise another arm sees.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_rng(*key: str | int) -> np.random.Generator:
    """A generator that depends on `key` alone (run seed, task, episode, stream, step, ...).

    The key parts are hashed with BLAKE2b into the key of a Philox counter generator, so distinct keys give
    independent streams and the same key gives the same numbers in every process and on every machine.

    >>> float(keyed_rng(0, "pick", 3, "noise", 7).random()) == float(keyed_rng(0, "pick", 3, "noise", 7).random())
    True
    >>> float(keyed_rng(0, "pick", 3, "noise", 7).random()) == float(keyed_rng(0, "pick", 3, "noise", 8).random())
    False
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
