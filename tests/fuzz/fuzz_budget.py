"""How many cases a fuzz test tries: a seeded share in CI, all of them with FAILSIGHT_FUZZ=full (`make fuzz`)."""

import os

CI_SHARE = 0.1


def cases(full):
    """Case numbers 0 .. n-1: `full` of them on request, a tenth (at least 20) otherwise; case i is the same in both."""
    if os.environ.get("FAILSIGHT_FUZZ") == "full":
        return range(full)
    return range(min(full, max(20, round(CI_SHARE * full))))
