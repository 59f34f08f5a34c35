"""A command that sends itself a signal in a chosen call.

SHIM_STRIKE   module:name:number, as threading:Thread.start:2 for the second thread that is started
SHIM_WHEN     before or after the call, or twice: both
SHIM_STRUCK   a file that is made when the signal is sent
"""

import os
import signal
import sys

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
        # workers are not meant, nor forked children
        processes = sys.modules.get("multiprocessing.process")
        leads = _getpid() == PROCESS and not (processes and processes.parent_process())
        count[0] += leads
        now = leads and count[0] == int(NUMBER)
        if now and WHEN != "after":
            strike()
        try:
            return call(*given, **options)
        finally:
            if now and WHEN != "before":
                strike()

    setattr(owner, name, struck)
