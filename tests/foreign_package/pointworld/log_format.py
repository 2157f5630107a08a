"""Logs of the point world: a text file per episode, one distance per line, success in its name."""

from pathlib import Path

import numpy as np

from failsight.core.specs import Access, SignalColumn
from failsight.episodes.formats.format import Format, ReadOptions
from failsight.episodes.logged import Log, LoggedEpisode


def files_of(path: Path) -> list[Path]:
    return sorted(path.glob("*.points"))


def sniff(path: Path) -> str:
    return f"{len(files_of(path))} files of the point world" if files_of(path) else ""


def read(path: Path, options: ReadOptions) -> Log:
    options.refuse_fields("pointlog")
    episodes = tuple(
        LoggedEpisode(
            task="home",
            instruction="go home",
            seed=number,
            number=number,
            success=file.stem.endswith("home"),
            signals=np.loadtxt(file, np.float32, ndmin=1)[:, None],
        )
        for number, file in enumerate(files_of(path))
    )
    return Log(columns=(SignalColumn(name="distance", unit="m", access=Access.PROPRIOCEPTION),), episodes=episodes)


FORMAT = Format(name="pointlog", sniff=sniff, read=read)
