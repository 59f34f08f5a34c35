"""Reads the tensors of a foreign checkpoint as numpy arrays, without running anything in the file."""

import io
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from paintproc.errors import InputError, MissingError
from paintproc.weights.pickles import (
    BFLOAT16,
    CODES,
    STEPS,
    Array,
    Storage,
    Unfit,
    View,
    joined,
    leaves,
    read_pickle,
    width,
)

if TYPE_CHECKING:
    import numpy as np

PICKLE = 64 << 20
"""Most bytes of the pickle in a torch zip; the values of the tensors are not in it."""
TIMES = 16
"""Unpacked tensors may have this many times the bytes of the file, and `SPARE` more."""
SPARE = 64 << 20

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a torch file from before 1.6."""
_VERSION = 1001


def read_tensors(path: Path) -> dict[str, "np.ndarray"]:
    """The tensors in `path`, by name: writable, C-contiguous arrays of native byte order that own their memory.

    Reads safetensors, torch files (zip, TorchScript, and those from before 1.6), pickled numpy arrays (protocol 2 and
    later) and Keras HDF5; the kind is told by the content. Names of nested containers, attributes and groups are joined
    with dots; whatever is not a tensor is left out. bfloat16 becomes float32, a numpy scalar an array without
    dimensions; tensors that are the same view of the same storage become one array. From TorchScript come all tensor
    attributes, which include the state dict, and constants as `constants.N`. InputError for anything else; MissingError
    for HDF5 without h5py.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except (InputError, MissingError):
        raise
    except Unfit as error:
        raise InputError(f"{path.name} {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path.name} is not there.") from error
    except Exception as error:
        # The readers of the four formats raise nearly anything on damage, OSError and MemoryError included.
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(f"{path.name} is damaged, or of a kind that is not read ({reason}).") from error


def _read(path: Path, file: BinaryIO) -> dict[str, "np.ndarray"]:
    start, size = file.read(16), file.seek(0, io.SEEK_END)
    file.seek(0)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_hdf5(path, size)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(file, size)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return _read_safetensors(file.read())
    if start.startswith(b"\x80"):
        return _read_pickle(file.read())
    raise Unfit("is no weight file of a kind that is read: safetensors, torch, pickled numpy arrays or HDF5.")


def _read_safetensors(data: bytes) -> dict[str, "np.ndarray"]:
    from safetensors import deserialize

    codes = {"BF16": BFLOAT16, "F16": "f2", "F32": "f4", "F64": "f8", "BOOL": "b1", "C64": "c8"}
    codes |= {f"{kind}{8 * width}": f"{kind.lower()}{width}" for kind in "IU" for width in (1, 2, 4, 8)}
    tensors = {}
    for name, value in deserialize(data):
        if value["dtype"] not in codes:
            raise Unfit(f"holds numbers of the kind {value['dtype']}, which is not read.")
        tensors[name] = _array(value["data"], "<", codes[value["dtype"]], value["shape"])
    return tensors


def _read_hdf5(path: Path, size: int) -> dict[str, "np.ndarray"]:
    try:
        import h5py
    except ImportError as error:
        raise MissingError(
            f"{path.name} is an HDF5 file, for which h5py is missing.", "Run: pip install 'paintproc[models]'"
        ) from error
    tensors: dict[str, np.ndarray] = {}
    room, seen = _Room(size), set()
    with h5py.File(path, "r") as root:
        waiting: list[tuple[str, Any]] = [("", root)]
        while waiting:
            lead, group = waiting.pop()
            place = h5py.h5o.get_info(group.id).addr
            if place in seen:
                raise Unfit("has a group inside itself or twice, which is not read.")
            seen.add(place)
            for key in group:
                name = joined(lead, key)
                if type(group.get(key, getlink=True)) is not h5py.HardLink:
                    raise Unfit(f"has a link at {name}, which is not followed.")
                item = group[key]
                if isinstance(item, h5py.Group):
                    waiting.append((name, item))
                elif isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "biufc":
                    if name in tensors:
                        raise Unfit(f"has two tensors of the name {name}.")
                    room.take(item.nbytes)
                    tensors[name] = _read_dataset(name, item)
    return tensors


def _read_dataset(name: str, dataset: Any) -> "np.ndarray":
    import numpy as np

    made = dataset.id.get_create_plist()
    # Only filters 1 to 3 (gzip, shuffle, checksum): for others HDF5 would load libraries from this machine.
    filters = [made.get_filter(k)[0] for k in range(made.get_nfilters())]
    if dataset.is_virtual or dataset.external or not set(filters) <= {1, 2, 3}:
        raise Unfit(f"keeps {name} in other files or under a foreign filter, which is not read.")
    if dataset.dtype.str[1:] not in CODES:
        raise Unfit(f"holds numbers of the kind {dataset.dtype} in {name}, which is not read.")
    return np.array(dataset[()], dtype=dataset.dtype.newbyteorder("="), order="C")


def _read_pickle(data: bytes) -> dict[str, "np.ndarray"]:
    """A pickle of numpy arrays, or the five pickles and the storages of an early torch file."""
    stream = io.BytesIO(data)
    root, storages = read_pickle(stream)
    contents: dict[str, bytes | memoryview] = {}
    if type(root) is int and root == _MAGIC:
        version, system = read_pickle(stream)[0], read_pickle(stream)[0]
        if version != _VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Unfit("is a torch file of a version or byte order that is not read.")
        root, storages = read_pickle(stream)
        keys, _ = read_pickle(stream)
        if type(keys) is not list or any(type(key) is not str or key not in storages for key in keys):
            raise Unfit("is damaged: its list of storages does not fit its tensors.")
        for key in keys:
            length = storages[key].length * width(storages[key].code)
            if int.from_bytes(stream.read(8), "little") != storages[key].length or len(data) - stream.tell() < length:
                raise Unfit(f"is damaged: storage {key} has another size than its tensors say.")
            contents[key] = memoryview(data)[stream.tell() : stream.tell() + length]
            stream.seek(length, io.SEEK_CUR)
    if stream.tell() != len(data):
        raise Unfit("goes on after its end.")
    return _arrays(root, "", lambda storage: bytearray(contents[storage.key]), _Room(len(data)))


def _read_zip(file: BinaryIO, size: int) -> dict[str, "np.ndarray"]:
    """A torch checkpoint, or TorchScript, whose constants are a second pickle."""
    tensors = {}
    room = _Room(size)
    with zipfile.ZipFile(file) as bundle:
        members = {info.filename: info for info in bundle.infolist()}
        if len(members) != len(bundle.infolist()) or len(members) > STEPS:
            raise Unfit("is a zip with two members of one name, or too many.")
        _Room(size).take(sum(info.file_size for info in members.values()))
        roots = [name for name in members if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(roots) != 1:
            raise Unfit("is a zip but no torch checkpoint: those have one data.pkl.")
        base = roots[0].removesuffix("data.pkl")
        if f"{base}byteorder" in members and _member(bundle, members, f"{base}byteorder", 6) != b"little":
            raise Unfit("was written in another byte order than little, which is not read.")
        for part, folder, lead in (("data.pkl", "data/", ""), ("constants.pkl", "constants/", "constants")):
            if base + part not in members:
                continue
            if members[base + part].file_size > PICKLE:
                raise Unfit(f"has a {part} of more than {PICKLE} bytes.")
            stream = io.BytesIO(bytes(_member(bundle, members, base + part, members[base + part].file_size)))

            def load(storage: Storage, folder: str = base + folder) -> bytearray:
                return _member(bundle, members, folder + storage.key, storage.length * width(storage.code))

            for name, array in _arrays(read_pickle(stream)[0], lead, load, room).items():
                if name in tensors:
                    raise Unfit(f"has two tensors of the name {name}.")
                tensors[name] = array
    return tensors


def _member(bundle: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, size: int) -> bytearray:
    """A member, which must have `size` bytes; zipfile checks its checksum when it is read to the end."""
    info = members.get(name)
    if info is None or info.file_size != size or (info.compress_size != size and not info.compress_type):
        raise Unfit(f"is damaged: its member {name} is missing or has another size than its tensors say.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & (0x1 | 0x40 | 0x2000):
        raise Unfit(f"has a member {name} that is encrypted or compressed in an unusual way.")
    data = bytearray(size)
    rest = memoryview(data)
    with bundle.open(info) as stream:
        while rest:
            piece = stream.read(min(len(rest), 1 << 20))
            if not piece:
                raise EOFError(f"{name} ends early")
            rest[: len(piece)] = piece
            rest = rest[len(piece) :]
        stream.read(1)
    return data


def _arrays(root: Any, lead: str, load: Callable[[Storage], bytearray], room: "_Room") -> dict[str, "np.ndarray"]:
    """The arrays of all records in `root`; `load` gives the bytes of a storage."""
    tensors: dict[str, np.ndarray] = {}
    contents: dict[str, bytearray] = {}
    made: dict[Any, np.ndarray] = {}
    for name, leaf in leaves(root, lead):
        if name in tensors:
            raise Unfit(f"has two tensors of the name {name}.")
        if isinstance(leaf, Array):
            if id(leaf) not in made:
                order, code, shape, fortran, data = leaf.checked(name)
                room.take(len(data))
                made[id(leaf)] = _array(data, order, code, shape, fortran)
            tensors[name] = made[id(leaf)]
            continue
        view = leaf.checked(name)
        if view not in made:
            if view.storage.key not in contents:
                contents[view.storage.key] = load(view.storage)
            content = contents[view.storage.key]
            if len(content) != view.storage.length * width(view.storage.code):
                raise Unfit(f"is damaged: {name} says another size of its storage than other tensors.")
            room.take(math.prod(view.shape) * width(view.code))
            made[view] = _strided(content, view)
        tensors[name] = made[view]
    return tensors


def _array(data: Any, order: str, code: str, shape: Any, axes: tuple[int, ...] = ()) -> "np.ndarray":
    """A new array of the bytes `data`, which have `shape` in the file; `axes` is then the order of its axes."""
    import numpy as np

    raw = np.frombuffer(data if len(data) else bytearray(), np.uint8).view(_raw_code(order, code))
    raw = raw.reshape(shape)
    return np.array(_numbers(raw.transpose(axes) if axes else raw, code), order="C")


def _strided(content: bytearray, view: View) -> "np.ndarray":
    """The tensor of a view of a storage; numpy, too, checks that it is inside."""
    import numpy as np

    if not math.prod(view.shape):
        return _numbers(np.empty(view.shape, _raw_code("<", view.code)), view.code)
    strides = [stride * width(view.code) for stride in view.strides]
    raw: np.ndarray = np.ndarray(
        view.shape, _raw_code("<", view.code), content, view.offset * width(view.code), strides
    )
    return np.asarray(_numbers(raw, view.code), order="C")


def _numbers(raw: "np.ndarray", code: str) -> "np.ndarray":
    """The numbers in native byte order, from their form in the file."""
    import numpy as np

    if code == BFLOAT16:
        # a bfloat16 is the upper half of a float32
        return np.asarray(np.asarray(raw.astype(np.uint32) << np.uint32(16)).view(np.float32))
    if code == "b1":
        return np.asarray(raw != 0)
    return raw.astype(raw.dtype.newbyteorder("="), copy=False)


def _raw_code(order: str, code: str) -> str:
    """The numpy type with which the bytes of a kind of numbers are read."""
    return {BFLOAT16: "<u2", "b1": "u1"}.get(code, order + code)


class _Room:
    """Counts how much may still be unpacked of a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._left = SPARE + TIMES * size

    def take(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise Unfit("unpacks to far more than its size.")
