"""What failsight has to know of a simulator: one value in the simulator's own folder, found by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.foreign import require_distinct
from failsight.core.mixes import spread
from failsight.core.registry import is_address
from failsight.core.types import EpisodeKey, Perturbation

CLEAN: Mapping[str, float] = {"none": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimEntry:
    """A simulator, its expert, its plans and its labels; addresses are `module:attribute`, imported on use.

    Register it under a name in the entry-point group `failsight.sims`, or use it by its own address. Raises
    FailsightError when a part contradicts another.
    """

    make: str
    """Address of what builds the `Sim` when called with `images="on_demand"` (draw only when asked)."""
    operator: str = ""
    """Address of what builds the `Operator`, the person's stand-in; empty: nobody can take over."""
    demonstrator: str = ""
    """Address of what builds the `Demonstrator`, for `failsight demonstrate`; empty: nobody shows how it is done."""
    tasks: tuple[str, ...] = ()
    """Ids of all tasks, so that a plan needs no simulator; empty: the simulator is asked."""
    kinds: tuple[str, ...] = ()
    """Kinds of perturbation, each at levels 1 (weak) to 5; empty: every episode is clean."""
    mixes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name -> condition (`push:3+light:2`) -> weight. `clean` and `all` (every kind and level alike) come by
    themselves, `default` is clean unless it is given.
    """
    labeler: str = ""
    """A labeler of ours (`events`, `driving`) or the address of one, called with `targets`, when there are any, and the
    action spec; empty: outcomes only.
    """
    targets: Mapping[str, str] = field(default_factory=dict)
    """Task -> the object it is about, for the labeler."""
    look: Mapping[str, float] = field(default_factory=dict)
    """Where the robot stands in no camera's way: state entry -> value, in the entry's unit; empty: nowhere in particular."""
    install: str = ""
    """What to type where a package of the simulator is missing."""

    def __post_init__(self) -> None:
        for address in (self.make, self.operator, self.demonstrator):
            if address and not is_address(address):
                raise FailsightError(f"{address!r} is not an address such as package.module:attribute.")
        require_distinct(self.tasks, "tasks", "task")
        require_distinct(self.kinds, "kinds", "perturbation")
        for name, mix in self.mixes.items():
            for condition, weight in mix.items():
                self._require_condition(condition)
                if not (math.isfinite(weight) and weight > 0):
                    raise FailsightError(f"Mix {name!r}: {condition} has weight {weight}; weights are above 0.")

    def keys(self, tasks: Sequence[str], seeds: Sequence[int], trials: int, mix: str) -> tuple[EpisodeKey, ...]:
        """`trials` episodes of every task under every seed, conditions dealt out from the mix by key.

        Raises FailsightError for a mix or condition this simulator does not know.
        """
        return spread(tasks, seeds, trials, self.find_mix(mix))

    def find_mix(self, text: str) -> Mapping[str, float]:
        """A named mix, or conditions separated by commas (`none,push:3,light:2+slippery:4`)."""
        named = self._named_mixes()
        if text in named:
            return named[text]
        if not self.kinds:
            raise FailsightError(f"This simulator has no perturbations; use --mix clean, not {text!r}.")
        if text in self.kinds:
            raise FailsightError(f"Say how strong: {text}:1 to {text}:5.")
        if not any(sign in text for sign in ":,"):
            raise FailsightError(f"Unknown mix {text!r}. Mixes: {', '.join(named)}; or conditions such as none,push:3.")
        mix = dict.fromkeys(text.split(","), 1.0)
        for condition in mix:
            self._require_condition(condition)
        return mix

    def _named_mixes(self) -> dict[str, Mapping[str, float]]:
        every = {f"{kind}:{level}": 1.0 for kind in self.kinds for level in range(1, 6)}
        return {"clean": CLEAN, "default": CLEAN, **({"all": every} if every else {}), **self.mixes}

    def _require_condition(self, condition: str) -> None:
        found = Perturbation.parse(condition)
        require_distinct((item.kind for item in found), condition, "perturbation")
        for item in found:
            if item.kind not in self.kinds:
                raise UnknownNameError("perturbation", item.kind, self.kinds)
            if item.level < 1:
                raise FailsightError(f"Perturbation {item} changes nothing; levels go from 1 to 5.")
