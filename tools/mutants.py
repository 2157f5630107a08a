"""How many small changes of the code would its tests notice? Mutation scores of the modules that numbers and stops hang on.

    .venv/bin/python tools/mutants.py                          # every module below, all mutants
    .venv/bin/python tools/mutants.py monitor/trigger          # one module
    .venv/bin/python tools/mutants.py --count 200 --seed 7     # a keyed random sample over all of them

Works on a copy under runs/mutants, where mutmut (own folder, installed on first use) keeps its results: interrupted, the
same command goes on. The test that starts another Python is left out. Exit code 1 when less than --least of the mutants
are killed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "runs" / "mutants"
MUTMUT = "mutmut==3.8.1"
MODULES: dict[str, tuple[str, ...]] = {
    "monitor/trigger": ("tests/monitor",),
    "monitor/thresholds": ("tests/monitor",),
    "interventions/guard": ("tests/interventions", "tests/runtime/test_loop.py", "tests/runtime/test_faults.py"),
    "labels/events": ("tests/labels",),
    "evaluation/detection": ("tests/evaluation",),
    "evaluation/paired": ("tests/evaluation",),
}
"""Module -> the tests that guard it."""
KILLED = ("killed", "timeout", "caught by type check")
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/failsight/{module}.py"]
pytest_add_cli_args_test_selection = [{tests}]
pytest_add_cli_args = ["-k", "not never_imports_torch"]
also_copy = ["pyproject.toml", "README.md", "docs", "design", "tests"]
"""


def main() -> None:
    """Run, print a table and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)} (default: all)")
    parser.add_argument("--count", type=int, help="a random sample of so many mutants over all modules")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--least", type=float, default=0.8, help="share that must be killed")
    options = parser.parse_args()
    unknown = [name for name in options.modules if name not in MODULES]
    if unknown:
        parser.error(f"unknown module {unknown[0]!r}; choose from {', '.join(MODULES)}")
    modules = options.modules or list(MODULES)
    copies = {module: prepare(module) for module in modules}
    chosen = sample(copies, options.count, options.seed)
    results = {module: run(copies[module], chosen[module]) for module in modules}
    print_table(results)
    everything = [state for found in results.values() for state in found.values()]
    share = sum(state in KILLED for state in everything) / max(1, len(everything))
    sys.exit(0 if share >= options.least else 1)


def prepare(module: str) -> Path:
    """A copy of the tracked files with mutmut's configuration for `module`; kept while they stay the same."""
    copy = WORK / module.replace("/", "-")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(name) for name in names.split("\0") if name and (ROOT / name).is_file()]
    tests = ", ".join(f'"{test}"' for test in MODULES[module])
    wanted = {path: (ROOT / path).read_bytes() for path in files}
    wanted[Path("pyproject.toml")] += CONFIG.format(module=module, tests=tests).encode()
    if any(not (copy / path).is_file() or (copy / path).read_bytes() != data for path, data in wanted.items()):
        shutil.rmtree(copy, ignore_errors=True)
        for path, data in wanted.items():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(data)
    return copy


def mutmut(copy: Path, *arguments: str, show: bool = False) -> str:
    """Run mutmut in a copy; its package lives beside the copies, out of the project's environment."""
    package = WORK / "package"
    if not package.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(package), MUTMUT]
        subprocess.run(install, check=True)
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    result = subprocess.run(command, cwd=copy, env=environment, text=True, stdout=None if show else subprocess.PIPE)
    return result.stdout or ""


def states(copy: Path) -> dict[str, str]:
    """Mutant -> what became of it, for every mutant that was made."""
    lines = mutmut(copy, "results", "--all", "true").splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines if ": " in line)
    return {name: state for name, _, state in pairs}


def sample(copies: dict[str, Path], count: int | None, seed: int) -> dict[str, list[str]]:
    """The mutants to run of each module, in order; an empty list means all."""
    if count is None:
        return {module: [] for module in copies}
    for copy in copies.values():
        if not (copy / "mutants").is_dir():
            mutmut(copy, "run", "--max-children", "1", "none-of-them")  # makes the mutants and the map of tests
    names = [(module, name) for module, copy in copies.items() for name in sorted(states(copy))]
    drawn = random.Random(seed).sample(names, min(count, len(names)))
    return {module: [name for owner, name in drawn if owner == module] for module in copies}


def run(copy: Path, names: list[str]) -> dict[str, str]:
    """What became of the named mutants (or all)."""
    mutmut(copy, "run", "--max-children", "2", *names, show=True)
    found = states(copy)
    return {name: found[name] for name in names or found}


def print_table(results: dict[str, dict[str, str]]) -> None:
    """Counts per module, then every survivor by name (`mutmut show NAME` in its copy prints the change)."""
    print(f"\n{'module':24} {'mutants':>8} {'killed':>8} {'survived':>9} {'untested':>9} {'score':>6}")
    for module, found in results.items():
        counts = Counter(found.values())
        killed = sum(counts[state] for state in KILLED)
        score = f"{killed / len(found):.0%}" if found else "-"
        print(f"{module:24} {len(found):8} {killed:8} {counts['survived']:9} {counts['no tests']:9} {score:>6}")
    for module, found in results.items():
        for name, state in found.items():
            if state not in KILLED:
                print(f"{module}: {name} {state}")


if __name__ == "__main__":
    main()
