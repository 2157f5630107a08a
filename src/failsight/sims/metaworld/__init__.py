"""Meta-World's fifty tasks, when the package is installed: `pip install --no-deps metaworld==3.1.1 imageio`.

Without `--no-deps` pip would replace our MuJoCo by the older one it pins; with ours it runs (checked with 3.8.1).
"""

from failsight.sims.base.headless import choose_backend

choose_backend()
