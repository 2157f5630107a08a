"""LIBERO's four suites, when the package is installed: `pip install 'failsight[libero]'` (about 400 MB of assets)."""

import os
import sys

if sys.platform.startswith("linux") and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported: headless rendering by default
