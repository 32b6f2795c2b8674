"""A stop that was asked for by a signal: noted at once, and heeded where nothing is half done.

What a signal handler raises is lost if Python happens to be in a destructor or in a callback of
the garbage collector. So a program's handler calls `ask`, and long work calls `check`. Nothing
here handles signals: without such a program, `check` does nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_asked: BaseException | None = None
_deferred = False


def ask(stop: BaseException) -> None:
    """Note a stop and raise it; within `deferred`, only note it."""
    global _asked
    _asked = stop
    if not _deferred:
        raise stop


def check() -> None:
    """Raise the stop that was asked for, if there is one."""
    if _asked is not None:
        raise _asked


def forget() -> None:
    """Forget the stop that was asked for."""
    global _asked
    _asked = None


@contextmanager
def deferred() -> Iterator[None]:
    """Raise stops only where `check` is called, and at the end."""
    global _deferred
    check()
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    check()
