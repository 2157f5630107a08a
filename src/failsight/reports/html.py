"""One self-contained HTML page from `summary.json` and `pictures/`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2

from failsight.core.errors import EpisodeDataError
from failsight.core.textfiles import read_json_object
from failsight.episodes.meta import write_text_atomic
from failsight.reports import detectors, figures, studies
from failsight.reports.arm_words import arm_words
from failsight.reports.verdict import claims, counted, number, spread

ROWS = ("recurrent", "salus_mlp", "clock", "task_prior", "condition_prior", "permuted")
ROW_MEANING = {
    "recurrent": "recurrent ensemble, hidden state + signals (default)",
    "salus_mlp": "6-64-64-4 network, six uncertainty signals",
    "clock": "elapsed time only",
    "task_prior": "failure rate of the task only",
    "condition_prior": "failure rate of the perturbation only",
    "permuted": "recurrent on permuted labels (control)",
}

CASE_LABELS = {"lost": "not rescued"}
"""Labels of summaries from before today's words."""


def write_report(folder: Path) -> Path:
    """Write `report.html` beside `summary.json`; returns its path.

    Raises EpisodeDataError when the folder has no readable summary, StorageError when it cannot be written.
    """
    summary = read_summary(folder)
    target = folder / "report.html"
    with readable(folder / "summary.json"):
        page = _page(summary, folder)
    write_text_atomic(target, page)
    return target


def read_summary(folder: Path) -> dict[str, Any]:
    """`summary.json` of an experiment folder. Raises EpisodeDataError when it is missing or no JSON object."""
    path = folder / "summary.json"
    if not path.is_file():
        raise EpisodeDataError(f"{folder} has no summary.json; make one with: failsight run demo, or failsight fit RUN")
    return read_json_object(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A summary of somebody else lacks what a page shows: EpisodeDataError names the file and what is missing."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError, OSError) as error:
        raise EpisodeDataError(
            f"{path} is not a summary that failsight wrote, or its pictures are gone ({type(error).__name__}: {error}); "
            "make it again with: failsight run NAME"
        ) from error


def _page(summary: Mapping[str, Any], folder: Path) -> str:
    kind = summary.get("kind")
    if kind == "study":
        return studies.render(summary)
    if kind:
        return detectors.render(summary)
    rows = folder / "episodes.json"
    return render(summary, folder / "pictures", read_json_object(rows) if rows.is_file() else None)


def render(summary: Mapping[str, Any], pictures: Path, episodes: Mapping[str, Any] | None = None) -> str:
    """The page as text; nothing in it refers to another file.

    Args: episodes: what `episodes.json` of the experiment holds; None: the page has no table of episodes.
    """
    index_file = pictures / "pictures.json"
    index: dict[str, Any] = {"types": {}, "cases": [], "threshold": 0}
    if index_file.is_file():
        index = read_json_object(index_file)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("failsight.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, spread=spread, counted=counted)
    words = arm_words(summary)
    return environment.get_template("report.html").render(
        s=summary,
        episodes=_inside_script(episodes),
        claims=claims(summary),
        arm_words=words,
        rows=[name for name in ROWS if name == "recurrent" or name in summary["detection"]["auc_50"]],
        row_meaning=ROW_MEANING,
        types=_types(index, pictures),
        cases=[_case(case, index["threshold"], pictures) for case in index["cases"]],
        figure_types=figures.failure_types(summary["failure_types"]),
        figure_arms=figures.arms(summary["arms"], [key for key in words if key != "none"]),
        figure_reliability=figures.reliability(summary["detection"]["reliability_25"]),
    )


def _inside_script(data: Mapping[str, Any] | None) -> str:
    """JSON that no text in it can end; empty where there is none."""
    return "" if data is None else json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _types(index: Mapping[str, Any], pictures: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [{**example, "src": data_uri(pictures / example["file"])} for example in examples]
        for kind, examples in index["types"].items()
    }


def _case(case: Mapping[str, Any], threshold: float | None, pictures: Path) -> dict[str, Any]:
    return {
        **case,
        "label": CASE_LABELS.get(case["label"], case["label"]),
        "svg": figures.traces(case, threshold),
        "none": {**case["none"], "src": data_uri(pictures / case["none"]["file"])},
        "arm_film": {**case["arm_film"], "src": data_uri(pictures / case["arm_film"]["file"])},
    }


def data_uri(path: Path) -> str:
    """A PNG file as a data URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
