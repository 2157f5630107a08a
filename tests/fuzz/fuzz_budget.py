"""How many cases a fuzz test tries, and for how long: a seeded share in CI, all with FAILSIGHT_FUZZ=full (`make fuzz`)."""

import contextlib
import os
import signal

CI_SHARE = 0.1
_PATIENCE = 12


def cases(full):
    """Case numbers 0 .. n-1: `full` of them on request, a tenth (at least 20) otherwise; case i is the same in both."""
    if os.environ.get("FAILSIGHT_FUZZ") == "full":
        return range(full)
    return range(min(full, max(20, round(CI_SHARE * full))))


@contextlib.contextmanager
def at_most(seconds):
    """Fails with TimeoutError after so many seconds of computing, or twelve times as many of waiting.

    A machine that is busy with something else does not make a case hang.
    """

    def late(*_):
        raise TimeoutError(f"longer than {seconds} s")

    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(_PATIENCE * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
