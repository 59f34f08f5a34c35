"""Reads the tensors of a foreign checkpoint, without running anything in the file. Needs torch.

Torch's own reader of weights reads what torch has saved. It knows neither TorchScript nor pickled numpy arrays nor
HDF5; for these there are the functions below.
"""

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintproc.errors import InputError, MissingError

if TYPE_CHECKING:
    import torch

TIMES = 16
"""Unpacked tensors may have this many times the bytes of the file, and `SPARE` more."""
SPARE = 64 << 20
DEPTH = 200
"""Most levels of nested containers."""
PARTS = 2_000_000
"""Most things in all containers; a large model has some 100,000."""

_SAVED_BY_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
"""How a torch file from before 1.6 begins."""


class Unfit(Exception):
    """Why a file is not read: a sentence without its first word, the name of the file."""


def read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """The tensors in `path`, by name, each contiguous and with memory of its own.

    Reads torch files, TorchScript, pickled numpy arrays and Keras HDF5; the kind is told by the content. Names of
    nested containers, attributes and groups are joined with dots; whatever is not a tensor is left out. InputError for
    anything else, MissingError for HDF5 without h5py.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        size = path.stat().st_size
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            root: Any = dict(_read_hdf5(path, size))
        elif start.startswith(b"PK\x03\x04"):
            root = _read_zip(path, size)
        elif start.startswith(_SAVED_BY_OLD_TORCH):
            root = _read_torch(path)
        elif start.startswith(b"\x80"):
            with path.open("rb") as file:
                root = _Arrays(file).load()
        else:
            raise Unfit("is no weight file of a kind that is read: torch, pickled numpy arrays or HDF5.")
        return _own(root, SPARE + TIMES * size)
    except MissingError:
        raise
    except Unfit as error:
        raise InputError(f"{path.name} {error}") from error
    except Exception as error:
        # the readers raise nearly anything on damage, OSError included
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise InputError(f"{path.name} asks for more memory than its size explains.") from error
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path.name} is damaged, or of a kind that is not read ({reason}).") from error


def _read_torch(file: Path | io.BytesIO) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # the error advises to run the file
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise _no_need(named[1]) from error
        why = re.search(r"Weights(?:Only)?Unpickler error: (.*)", str(error))
        raise Unfit(f"is not read by torch ({why[1].rstrip('.') if why else 'it is damaged'}).") from error


def _no_need(name: str) -> Unfit:
    return Unfit(f"names {name[:200]}, which a weight file has no need of; it is not read.")


def _read_zip(path: Path, size: int) -> Any:
    """A torch file, or TorchScript: of that a copy without its code, with `Record` in the place of its classes."""
    import torch

    with zipfile.ZipFile(path) as bundle:
        names = bundle.namelist()
        if sum(info.file_size for info in bundle.infolist()) > SPARE + TIMES * size or len(set(names)) < len(names):
            raise Unfit("unpacks to far more than its size, or has two members of one name.")
        code = [name for name in names if name.endswith("/constants.pkl")]
        if not code:
            return _read_torch(path)
        base = code[0].removesuffix("constants.pkl")
        plain = io.BytesIO()
        with zipfile.ZipFile(plain, "w") as copy:
            for name in names:
                if name in (f"{base}data.pkl", f"{base}version", f"{base}byteorder") or name.startswith(f"{base}data/"):
                    copy.writestr(name, bundle.read(name))
        steps = pickletools.genops(bundle.read(f"{base}data.pkl"))
        asked = {str(argument).replace(" ", ".") for step, argument, _ in steps if step.name == "GLOBAL"}
    replaced: list[Any] = [(Record, name) for name in asked if name.startswith("__torch__.")]
    replaced += [(_first, name) for name in asked if name.startswith("torch.jit._pickle.")]
    plain.seek(0)
    with torch.serialization.safe_globals(replaced):
        return _read_torch(plain)


class Record:
    """An object of TorchScript, or a numpy array or type in a pickle: what it was made of, and its state."""

    def __init__(self, *made_of: Any) -> None:
        self.made_of = made_of
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _first(value: Any, *_: Any) -> Any:
    """The first argument; the others do not change its values."""
    return value


class _Array(Record):
    pass


class _Kind(Record):
    pass


class _Arrays(pickle.Unpickler):
    """Reads pickled numpy arrays. The three names that they need stand for `Record`s, and there are no others.

    Torch's reader does not know the instructions BINBYTES and SHORT_BINBYTES, which such files have.
    """

    def find_class(self, module: str, name: str) -> Any:
        core = module in ("numpy.core.multiarray", "numpy._core.multiarray")
        known = {"ndarray": Record, "dtype": _Kind} if module == "numpy" else {"_reconstruct": _Array} if core else {}
        if name not in known:
            raise _no_need(f"{module}.{name}")
        return known[name]


def _numbers(array: _Array, name: str) -> "torch.Tensor":
    """The tensor of a pickled array, from the five values of its state."""
    import numpy as np

    _, shape, kind, fortran, data = array.state
    code, order = kind.made_of[0], kind.state[1]
    if (
        code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
        or order not in "<|"
        or type(data) is not bytes
    ):
        raise Unfit(f"holds something else than plain numbers in {name}, which is not read.")
    return _tensor(np.frombuffer(data, order + code).reshape(shape, order="F" if fortran else "C"))


def _tensor(array: Any) -> "torch.Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _own(root: Any, room: int) -> dict[str, "torch.Tensor"]:
    """The tensors in nested containers, each with memory of its own; all of them have at most `room` bytes."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, value in _leaves(root):
        if isinstance(value, _Array):
            value = _numbers(value, name)
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise Unfit(f"has a tensor of an unusual kind, {name}, which is not read.")
        room -= value.numel() * value.element_size()
        if room < 0:
            raise Unfit("unpacks to far more than its size.")
        if name in tensors:
            raise Unfit(f"has two tensors of the name {name}.")
        value = value.detach().resolve_conj().resolve_neg()
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    return tensors


def _leaves(root: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of each tensor in nested containers and objects, in their order."""
    import torch

    waiting, count = [("", root, 0)], 0
    while waiting:
        lead, value, depth = waiting.pop()
        if isinstance(value, (torch.Tensor, _Array)):
            yield lead, value
            continue
        if isinstance(value, Record):
            value = value.state
        parts = list(value.items() if isinstance(value, dict) else enumerate(value)) if _holds(value) else []
        count += 1 + len(parts)
        if depth > DEPTH or count > PARTS:
            raise Unfit("is nested too deep, or holds too many things.")
        for key, part in reversed(parts):
            if isinstance(part, (torch.Tensor, Record)) or _holds(part):
                waiting.append((_joined(lead, key), part, depth + 1))


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple))


def _joined(lead: str, key: Any) -> str:
    """The name of the part `key` of `lead`."""
    if type(key) not in (str, int) or len(lead) + len(str(key)) > 500:
        raise Unfit(f"has names that are no text or too long, in {lead[:100] or 'its outermost mapping'}.")
    return f"{lead}.{key}" if lead else str(key)


def _read_hdf5(path: Path, size: int) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Name and tensor of each dataset of numbers. Nothing that leads out of the file is followed."""
    try:
        import h5py
    except ImportError as error:
        raise MissingError(
            f"{path.name} is an HDF5 file, for which h5py is missing.", "Run: pip install 'paintproc[models]'"
        ) from error
    room, seen = SPARE + TIMES * size, set()
    with h5py.File(path, "r") as root:
        waiting: list[tuple[str, Any]] = [("", root)]
        while waiting:
            lead, group = waiting.pop()
            place = h5py.h5o.get_info(group.id).addr
            if place in seen:
                raise Unfit("has a group inside itself or twice, which is not read.")
            seen.add(place)
            for key in group:
                name = _joined(lead, key)
                if type(group.get(key, getlink=True)) is not h5py.HardLink:
                    raise Unfit(f"has a link at {name}, which is not followed.")
                item = group[key]
                if isinstance(item, h5py.Group):
                    waiting.append((name, item))
                elif isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "biufc":
                    room -= item.nbytes
                    if room < 0:
                        raise Unfit("unpacks to far more than its size.")
                    yield name, _tensor(_plain_dataset(name, item)[()])


def _plain_dataset(name: str, dataset: Any) -> Any:
    """`dataset`. Unfit if its numbers are in other files, or under filters for which HDF5 would load libraries."""
    made = dataset.id.get_create_plist()
    # 1 to 3 are gzip, shuffle and checksum
    filters = {made.get_filter(k)[0] for k in range(made.get_nfilters())}
    if dataset.is_virtual or dataset.external or not filters <= {1, 2, 3}:
        raise Unfit(f"keeps {name} in other files or under a foreign filter, which is not read.")
    return dataset
