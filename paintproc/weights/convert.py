"""Converts foreign checkpoints to safetensors, in a process of its own with bounded memory.

    python -m paintproc.weights.convert FILE TARGET SHA256

Names and values of the tensors stay as in the published file. The header of the result holds the sha256 of that file
and a digest of the tensors.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from paintproc.errors import InputError, MissingError, OutputError, PaintprocError
from paintproc.jobs.local import limit_memory

EXTRA = "Install it with: pip install 'paintproc[models]'"
SPARE_MEMORY = 2 << 30
"""Converting may take four times the size of the file, and so many bytes more than torch itself."""
KINDS = {
    **{f"{letter}{8 * width}": f"<{letter.lower()}{width}" for letter in "FIU" for width in (2, 4, 8)},
    **{"I8": "|i1", "U8": "|u1", "BOOL": "|b1", "C64": "<c8"},
}
"""Kinds of numbers as the digest names them, by their names in safetensors."""
_NOT_YET = "0" * 64
"""Stands in the header until the digest is known."""


def convert(file: Path, target: Path, published: str) -> None:
    """Write the tensors of `file` to `target`, in an empty folder; `published` is the sha256 of the file.

    InputError if the file holds anything but tensors, is damaged, or makes the child process crash. MissingError
    without torch. OSError only from writing.
    """
    check_torch(file.name)
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


def check_torch(name: str) -> None:
    """MissingError if torch, which reads foreign files, is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingError(f"{name} is to be converted, for which torch is missing.", EXTRA)


def tensors_digest(file: Path) -> str:
    """sha256 over the names, types, shapes and values of the tensors in a safetensors file, sorted by name.

    InputError if it is damaged.
    """
    header, digest = read_header(file), hashlib.sha256()
    header.pop("__metadata__", None)
    with file.open("rb") as source:
        start = 8 + int.from_bytes(source.read(8), "little")
        for name, entry in sorted(header.items()):
            begin, end = entry["data_offsets"]
            kind = KINDS.get(entry["dtype"], entry["dtype"])
            digest.update(f"{name}\n{kind}\n{tuple(entry['shape'])}\n".encode())
            source.seek(start + begin)
            while begin < end:
                piece = source.read(min(1 << 20, end - begin))
                digest.update(piece)
                begin += len(piece)
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
    if "MemoryError" in done.stderr or "can't allocate memory" in done.stderr:
        return "it asks for more memory than its size explains"
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def _main() -> None:
    file, target, published = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    import torch
    from safetensors.torch import save_file

    limit_memory(_address_space() + 4 * file.stat().st_size + SPARE_MEMORY)
    # each thread would take address space
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    from paintproc.weights.tensors import read_tensors

    try:
        tensors = read_tensors(file)
    except PaintprocError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    try:
        # save_file lets only the owner read the file; on a cluster others need it, too: use the mode of a new file
        target.touch()
        mode = target.stat().st_mode
        # transformers reads only files of the format "pt"
        save_file(tensors, target, metadata={"format": "pt", "published": published, "tensors": _NOT_YET})
        target.chmod(mode)
        _write_digest(target)
    except Exception as error:
        number = re.search(r"os error (\d+)|Errno (\d+)", str(error))
        if not number:
            raise
        print(number[1] or number[2], file=sys.stderr)
        sys.exit(OutputError.exit_code)


def _write_digest(target: Path) -> None:
    digest = tensors_digest(target)
    with target.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        file.seek(8 + header.index(f'"tensors":"{_NOT_YET}'.encode()) + len('"tensors":"'))
        file.write(digest.encode())


def _address_space() -> int:
    """Bytes of address space that this process has taken; 0 where the system does not say, which limits nothing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    _main()
