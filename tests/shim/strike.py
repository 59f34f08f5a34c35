"""A command that sends itself a signal in a chosen call.

SHIM_STRIKE   module:name:number, as threading:Thread.start:2 for the second thread that is started
SHIM_WHEN     before or after the call, or twice: both
SHIM_STRUCK   a file that is made when the signal is sent
"""

import os
import signal

# bound now: what is struck may be one of these
_open, _close, _kill, _getpid = os.open, os.close, os.kill, os.getpid

MODULE, NAME, NUMBER = os.environ["SHIM_STRIKE"].split(":")
WHEN = os.environ["SHIM_WHEN"]
PROCESS = _getpid()


def strike() -> None:
    _close(_open(os.environ["SHIM_STRUCK"], os.O_WRONLY | os.O_CREAT))
    _kill(_getpid(), signal.SIGTERM)


def arm(module):  # type: ignore[no-untyped-def]
    """Put the signal around the call."""
    *path, name = NAME.split(".")
    owner = module
    for part in path:
        owner = getattr(owner, part)
    call, count = getattr(owner, name), [0]

    def struck(*given, **options):  # type: ignore[no-untyped-def]
        # a forked child, as one that runs another program, is not meant
        count[0] += 1
        now = count[0] == int(NUMBER) and _getpid() == PROCESS
        if now and WHEN != "after":
            strike()
        try:
            return call(*given, **options)
        finally:
            if now and WHEN != "before":
                strike()

    setattr(owner, name, struck)
