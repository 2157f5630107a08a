"""Plain-language verdicts: a claim is shown only when its interval says so.

Else it is not shown; a promise that its interval contains is not contradicted; an arm that never acted was not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from failsight.evaluation.claims import is_shown
from failsight.reports.arm_words import arm_words, name_of, placebos

Found = Literal["shown", "not shown", "contradicted", "not contradicted", "not tested"]
"""What the data say of a claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim and what the data say."""

    title: str
    found: Found
    sentence: str

    @property
    def shown(self) -> bool:
        """Whether the interval says so."""
        return self.found == "shown"


def claims(summary: Mapping[str, Any]) -> list[Claim]:
    """The claims every experiment is asked, in a fixed order."""
    return [
        _prediction(summary),
        _within_task(summary),
        *_within_perturbation(summary),
        _false_alarms(summary),
        *_arms(summary),
        _pairing(summary),
    ]


def _above(estimate: Mapping[str, Any], bar: float = 0.0) -> bool:
    """By the one rule of `evaluation.claims`: the interval of a difference lies above the bar."""
    low = None if estimate["low"] is None else estimate["low"] - bar
    return is_shown([{"low": low}])


def _found(shown: bool) -> Found:
    return "shown" if shown else "not shown"


_OLD = {"shown": False, "sentence": "not compared with the controls (this summary was made by an older version)"}


def _prediction(summary: Mapping[str, Any]) -> Claim:
    row, claim = summary["detection"]["auc_50"], _paired(summary, "pooled")
    return Claim(
        title="Failures are seen coming",
        found=_found(claim["shown"]),
        sentence=f"At half the horizon, among episodes still running, the predictor ranks a failing above a succeeding "
        f"episode with probability {judged(row)}; in points: {claim['sentence']}.",
    )


def _within_task(summary: Mapping[str, Any]) -> Claim:
    row, claim = summary["detection"]["within_task_auc_50"], _paired(summary, "within_task")
    permuted = f" (permuted labels {number(row['permuted'])})" if "permuted" in row else ""
    return Claim(
        title="... and not by knowing which task is hard",
        found=_found(claim["shown"]),
        sentence=f"Comparing only episodes of the same task, that probability is {judged(row)}{permuted}; "
        f"in points: {claim['sentence']}.",
    )


def _within_perturbation(summary: Mapping[str, Any]) -> list[Claim]:
    """Nothing where perturbations are not known."""
    if "within_perturbation" not in summary["detection"].get("claims_50", {}):
        return []
    row, claim = summary["detection"]["within_perturbation_auc_50"], _paired(summary, "within_perturbation")
    return [
        Claim(
            title="... nor by knowing what was disturbed",
            found=_found(claim["shown"]),
            sentence=f"Comparing only episodes under the same perturbation, that probability is {judged(row)}; "
            f"in points: {claim['sentence']}.",
        )
    ]


def _paired(summary: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = summary["detection"].get("claims_50", {}).get(group, _OLD)
    return found


def _false_alarms(summary: Mapping[str, Any]) -> Claim:
    row = summary["false_alarm_rate"]
    return Claim(
        title="The promised false-alarm rate is kept",
        found=_promise(row),
        sentence=f"Promised {row['alpha']:.0%} of successful episodes, measured {number(row, percent=True)}. "
        f"With {row['calibration_successes']} calibration successes the true rate of this one threshold may be up to "
        f"{row['alpha_upper']:.0%}.",
    )


def _promise(row: Mapping[str, Any]) -> Found:
    """Kept only when the whole interval lies at or below the promise; one that contains it does not contradict it."""
    if row["low"] is None:
        return "not tested"
    if row["high"] <= row["alpha"]:
        return "shown"
    return "not contradicted" if row["low"] <= row["alpha"] else "contradicted"


def _arms(summary: Mapping[str, Any]) -> list[Claim]:
    """What every arm claims, in the summary's own words: nothing here knows an arm by name."""
    asked = {"helps": _helps, "prevents": _prevents, "harmless": _harmless}
    words = arm_words(summary)
    return [claim for key, row in words.items() if row["asks"] in asked for claim in asked[row["asks"]](summary, key)]


def _helps(summary: Mapping[str, Any], key: str) -> list[Claim]:
    arm = summary["arms"][key]
    found = _found(_above(arm["success_change"])) if acted(arm) else "not tested"
    return [Claim(title=arm_words(summary)[key]["title"], found=found, sentence=_changes(arm))]


def _changes(arm: Mapping[str, Any]) -> str:
    """What an arm does to success, in counts of the episodes it was tried on."""
    if not acted(arm):
        return f"It never acted: {arm['triggers']} alarms in {arm['pairs']} episodes."
    harmed = arm.get("harm_alarmed", arm["harm_rate"])
    return (
        f"Success changes by {number(arm['success_change'], percent=True)}: {counted(arm['rescue_rate'])} alarmed failures "
        f"rescued, {counted(harmed)} alarmed successes harmed."
    )


def acted(arm: Mapping[str, Any]) -> bool:
    """Whether an arm ever did anything; one that did not was not tested. A stop leaves no step to act in."""
    stopped = arm["stop_rate"]["value"] or 0.0
    return bool(arm["duty_cycle"] > 0 or stopped > 0)


def counted(share: Mapping[str, Any]) -> str:
    """A share as the counts it is made of.

    >>> counted({"value": 2 / 15, "n": 15})
    '2 of 15'
    """
    return f"{round((share['value'] or 0.0) * share['n'])} of {share['n']}"


def _prevents(summary: Mapping[str, Any], key: str) -> list[Claim]:
    arm, gap = summary["arms"][key], summary["arms"][key].get("over_placebo")
    title = arm_words(summary)[key]["title"]
    if not acted(arm):
        return [Claim(title=title, found="not tested", sentence=_changes(arm))]
    prevented = Claim(
        title=title,
        found=_found(gap is not None and _above(arm["failure_reduction"]) and _above(gap)),
        sentence=f"{number(arm['failure_reduction'], percent=True)} fewer failures than doing nothing "
        f"(exact McNemar p = {arm['mcnemar_p']:.2g}). {_changes(arm)} It takes {arm['human_minutes_per_hour']:.0f} minutes of a "
        f"person's time per hour. {_same_as_rung(summary, key)}{_beside_placebo(summary, key)}",
    )
    return [prevented, _collisions(summary, key)]


def _opened(summary: Mapping[str, Any]) -> list[str]:
    """Rungs that may act on some failure type; where nobody asked by type, on all of them."""
    entries = summary.get("gate_types") or summary["gate"]
    return list(dict.fromkeys(entry["rung"] for entry in entries if entry["open"]))


def _same_as_rung(summary: Mapping[str, Any], key: str) -> str:
    """Said where a ladder has one open rung only: then it is that arm, and no second finding."""
    opened = _opened(summary)
    everywhere = all(entry["open"] for entry in summary.get("gate_types", []) if entry["rung"] in opened)
    if not arm_words(summary)[key]["gated"] or len(opened) != 1 or not everywhere:
        return ""
    return f"Only {name_of(opened[0])} had earned its place, so this is that arm and no second finding. "


def _beside_placebo(summary: Mapping[str, Any], key: str) -> str:
    """How an arm compares with the placebo, in pairs; says so where there is none."""
    words, arms = arm_words(summary), summary["arms"]
    found = placebos(words)
    if not found:
        return "No placebo was run, so nothing says that the moment of the alarm mattered."
    named = arms[key].get("placebo", "")
    placebo = named if named in words else found[0]
    gap, sentence = arms[key].get("over_placebo"), words[placebo]["sentence"] or name_of(placebo)
    ahead = f"{name_of(key)} is ahead of it by {number(gap, percent=True)}, paired" if gap else "not compared in pairs"
    changed = number(arms[placebo]["success_change"], percent=True)
    return f"{sentence[:1].upper()}{sentence[1:]} changes success by {changed}; {ahead}."


def _collisions(summary: Mapping[str, Any], key: str) -> Claim:
    arm = summary["arms"][key]
    without = summary["arms"].get("none", {}).get("collision_rate")
    return Claim(
        title="... and collisions",
        found=_found(_above(arm["collision_reduction"])),
        sentence=f"Collision rate {number(without, percent=True) if without else 'not known'} without, "
        f"{number(arm['collision_rate'], percent=True)} with {name_of(key)}: "
        f"{number(arm['collision_reduction'], percent=True)} fewer.",
    )


def _harmless(summary: Mapping[str, Any], key: str) -> list[Claim]:
    arm, words = summary["arms"][key], arm_words(summary)
    opened = [rung for rung in _opened(summary) if words.get(rung, {}).get("autonomous", True)]
    title, low = words[key]["title"], arm["success_change"]["low"]
    if not acted(arm):
        why = "was never asked for" if opened else "has earned its place"
        rungs = ", ".join(map(name_of, opened)) or "no autonomous rung"
        return [Claim(title=title, found="not tested", sentence=f"It never acted: {rungs} {why}.")]
    found = _found(low is not None and low > -0.05)
    return [Claim(title=title, found=found, sentence=f"Open: {', '.join(map(name_of, opened))}. {_changes(arm)}")]


def _pairing(summary: Mapping[str, Any]) -> Claim:
    flips = summary["aa_flips"]
    return Claim(
        title="Differences between arms are real, not noise",
        found=_found(flips["flips"] == 0) if flips["forks"] else "not tested",
        sentence=f"Continuing twice from the same trigger gave a different outcome in {flips['flips']} of "
        f"{flips['forks']} forks (A/A).",
    )


def number(estimate: Mapping[str, Any], percent: bool = False) -> str:
    """`0.91 [0.85, 0.96]`, or in per cent; says so when there is no data.

    >>> number({"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}, percent=True)
    '50 % [25, 75]'
    """
    if estimate["value"] is None:
        return f"no data (n={estimate['n']})"
    scale, digits = (100, 0) if percent else (1, 2)
    sign = " %" if percent else ""

    def text(name: str) -> str:
        return f"{round(estimate[name] * scale, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0 into 0

    if estimate["low"] is None:
        return f"{text('value')}{sign} (n={estimate['n']})"
    return f"{text('value')}{sign} [{text('low')}, {text('high')}]"


def judged(estimate: Mapping[str, Any]) -> str:
    """`0.91 [0.85, 0.96] of 155 episodes`: an AUC never stands without the number of episodes behind it."""
    return f"{number(estimate)} of {estimate['n']} episodes" if estimate["low"] is not None else number(estimate)


def spread(estimate: Mapping[str, Any]) -> str:
    """`[55, 70] %, n = 168`: what stands below a value that is shown by itself."""
    if estimate["low"] is None:
        return f"n = {estimate['n']}"
    low, high = (f"{round(estimate[end] * 100, 0) + 0.0:.0f}" for end in ("low", "high"))
    return f"[{low}, {high}] %, n = {estimate['n']}"


def point(value: float | None) -> str:
    """Two digits, or "no data"."""
    return "no data" if value is None else f"{value:.2f}"
