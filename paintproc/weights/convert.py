"""Converts foreign checkpoints to safetensors, in a process of its own with bounded memory.

    python -m paintproc.weights.convert FILE TARGET SHA256

Names and values of the tensors stay as in the published file. The header of the result holds the sha256 of that file
and a digest of the tensors.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintproc.errors import InputError, MissingError, OutputError, PaintprocError
from paintproc.jobs.local import limit_memory

if TYPE_CHECKING:
    import numpy as np

SPARE_MEMORY = 2 << 30
"""Converting may take four times the size of the file, and so many bytes more."""


def convert(file: Path, target: Path, published: str) -> None:
    """Write the tensors of `file` to `target`, in an empty folder; `published` is the sha256 of the file.

    InputError if the file holds anything but tensors, is damaged, or makes the child process crash. OSError only from
    writing.
    """
    command = [sys.executable, "-P", "-m", "paintproc.weights.convert", str(file), str(target), published]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return
    kind = {MissingError.exit_code: MissingError, InputError.exit_code: InputError}.get(done.returncode)
    if kind is not None:
        raise kind(" ".join(done.stderr.split()))
    if done.returncode == OutputError.exit_code:
        number = int(done.stderr.split()[-1])
        raise OSError(number, os.strerror(number))
    raise InputError(f"{file.name} cannot be read as a weight file: {_last_line(done)}.")


def tensors_digest(tensors: Mapping[str, "np.ndarray"]) -> str:
    """sha256 over the tensors' names, types, shapes and values, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}\n{value.dtype.str}\n{value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def read_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file. InputError if it is damaged, or the file has another length than it says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as source:
            length = int.from_bytes(source.read(8), "little")
            if not 2 <= length <= min(size - 8, 100 << 20):
                raise ValueError("its header does not fit")
            header = json.loads(source.read(length))
        if not isinstance(header.get("__metadata__", {}), dict):
            raise ValueError("its header is damaged")
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it should have {8 + length + end} bytes and has {size}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is damaged, or no safetensors file: {error}.") from error
    return header


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        return f"reading it ended with signal {-done.returncode}"
    if "MemoryError" in done.stderr:
        return "it asks for more memory than its size explains"
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def _main() -> None:
    file, target, published = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    limit_memory(4 * file.stat().st_size + SPARE_MEMORY)
    # numpy's own threads would each take address space
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from safetensors.numpy import save_file

    from paintproc.weights.tensors import read_tensors

    try:
        tensors = read_tensors(file)
    except PaintprocError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    metadata = {"published": published, "tensors": tensors_digest(tensors)}
    try:
        # save_file lets only the owner read the file; on a cluster others need it, too: use the mode of a new file
        target.touch()
        mode = target.stat().st_mode
        save_file(tensors, target, metadata=metadata)
        target.chmod(mode)
    except Exception as error:
        number = re.search(r"os error (\d+)|Errno (\d+)", str(error))
        if not number:
            raise
        print(number[1] or number[2], file=sys.stderr)
        sys.exit(OutputError.exit_code)


if __name__ == "__main__":
    _main()
