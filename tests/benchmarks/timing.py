"""Time a function by calling it again and again."""

import time


def seconds_per_call(step, seconds):
    """Return the mean duration of the calls of `step` that begin within this many seconds."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        step()
        calls += 1
    return elapsed / calls
