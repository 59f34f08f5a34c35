"""The failed items of a batch, and their list on disk."""

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

from paintproc import console
from paintproc.cli.options import check_stopped, print_result
from paintproc.errors import OutputError, PaintprocError

KEYS = {"input", "error", "exit_code"}


class Failures(list[dict[str, object]]):
    """One object for each failed item: `input`, `error`, `exit_code`; written to `failures.jsonl`.

    With `as_json` each is also printed on stdout as it comes. OutputError, before any work, when a file of that
    name is not such a list.
    """

    def __init__(self, folder: Path, as_json: bool = False) -> None:
        super().__init__()
        self.as_json = as_json
        self.path = folder / "failures.jsonl"
        self.stop = False
        """Whether all later items would fail too, because the disk is full."""
        if self.path.exists() and not self._ours():
            raise OutputError(f"{self.path} exists already and is not a list of failures.", "Choose another --output.")

    @contextlib.contextmanager
    def noting(self, source: str) -> Iterator[None]:
        """Report whatever goes wrong with one item, and go on with the batch."""
        try:
            yield
        except PaintprocError as error:
            check_stopped()
            self.note(source, str(error), error.exit_code)
        except BrokenPipeError:
            raise
        except MemoryError:
            check_stopped()
            self.note(source, f"{source}: out of memory. A smaller --size needs less.", 5)
        except Exception as error:
            check_stopped()
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{source}: this is a bug: {type(error).__name__}: {error} ({where.name}, line {where.lineno})."
            self.note(source, text, 1)

    def write(self) -> None:
        """Write the list whole, or remove an older one when nothing failed."""
        from paintproc.files import whole_file

        if self:
            with whole_file(self.path, replace=True) as scratch:
                text = "".join(json.dumps(failure) + "\n" for failure in self)
                scratch.write_text(text, encoding="utf-8", newline="\n")
        else:
            self.path.unlink(missing_ok=True)

    def note(self, source: str, text: str, exit_code: int) -> None:
        """Report that an item failed, and keep it for the list."""
        self.stop = self.stop or (exit_code == OutputError.exit_code and "disk is full" in text)
        console.complain(f"paintproc: {text}")
        self.append({"input": source, "error": text, "exit_code": exit_code})
        if self.as_json:
            print_result(json.dumps(self[-1]))

    def _ours(self) -> bool:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            return all(set(json.loads(line)) == KEYS for line in lines)
        except (OSError, ValueError, TypeError):
            return False
