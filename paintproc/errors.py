"""Everything paintproc raises on purpose: one sentence, a way out, an exit code.

PaintprocError
├── UsageError      2   contradictory or impossible settings
├── InputError      3   the one input is missing, damaged or of a wrong kind; of several, none can be read
├── MissingError    4   an extra or pretrained weights are not installed, or ffmpeg cannot be started
├── DeviceError     5   no such device, no Ray cluster, or out of memory
├── PartialError    6   some items of several failed; the rest is written
└── OutputError     7   the output exists, is read-only, or the disk is full

Interrupted        75   SIGTERM, SIGUSR1 or SIGHUP; running again goes on
"""


class PaintprocError(Exception):
    """A failure with a plain sentence for the user.

    `message` names file, number and option; `hint` says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(PaintprocError):
    exit_code = 2


class InputError(PaintprocError):
    exit_code = 3


class MissingError(PaintprocError):
    exit_code = 4


class DeviceError(PaintprocError):
    exit_code = 5


class PartialError(PaintprocError):
    exit_code = 6


class OutputError(PaintprocError):
    exit_code = 7


class Interrupted(BaseException):
    """A signal; like KeyboardInterrupt no `except Exception` holds it up."""

    exit_code = 75
