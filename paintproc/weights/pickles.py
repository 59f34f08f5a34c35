"""Reads pickles of foreign checkpoints without running anything in them.

A pickle is a program. All its instructions are checked before the first is carried out. Every name it asks for is
replaced by a function or class of this file, which only stores what it is given.
"""

import math
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

DEPTH = 200
"""Most levels of nested containers."""
STEPS = 2_000_000
"""Most instructions of a pickle, and most things in its containers; a large model has some 100,000."""
NAME = 500
"""Most characters of a tensor's name."""
CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16")
"""Kinds of numbers, as numpy names them."""
BFLOAT16 = "bfloat16"

_PLAIN = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING SHORT_BINSTRING
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_DICT EMPTY_LIST
    EMPTY_TUPLE EMPTY_SET TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL
    REDUCE NEWOBJ BINPERSID
"""
_FILLS = ("SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "BUILD")
_STEPS = frozenset((*_PLAIN.split(), *_FILLS))


def read_pickle(stream: BinaryIO) -> tuple[Any, dict[str, "Storage"]]:
    """What the next pickle in `stream` builds, and the storages it names, by their keys.

    The result consists of plain containers, numbers, text and the records of this file. `stream` must have its bytes in
    memory; afterwards it stands behind the pickle. Unfit for anything that a weight file does not need. Damage may
    raise any Exception.
    """
    start = stream.tell()
    _check_steps(stream)
    stream.seek(start)
    # Python 2 wrote numbers as text, which latin1 gives back byte by byte
    unpickler = _Unpickler(stream, encoding="latin1")
    return unpickler.load(), unpickler.storages


def leaves(root: Any, lead: str) -> Iterator[tuple[str, "Array | View"]]:
    """Name and record of each tensor in nested containers and modules, in their order."""
    waiting = [(lead, root, 0)]
    count = 0
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, (Array, View)):
            yield name, value
            continue
        if isinstance(value, Module):
            value = value.state
        parts: list[tuple[Any, Any]] = []
        if isinstance(value, Ordered):
            parts = [*value.pairs, *value.items()]
        elif type(value) is dict:
            parts = list(value.items())
        elif type(value) in (list, tuple):
            parts = list(enumerate(value))
        count += 1 + len(parts)
        if depth > DEPTH or count > STEPS:
            raise Unfit("is nested too deep, or holds too many things.")
        parts = [(key, part) for key, part in reversed(parts) if isinstance(part, _HOLDERS)]
        waiting += [(joined(name, key), part, depth + 1) for key, part in parts]


def joined(lead: str, key: Any) -> str:
    """The name of the part `key` of `lead`."""
    if type(key) not in (str, int):
        raise Unfit(f"has names that are no text, in {lead or 'its outermost mapping'}.")
    if len(lead) + (len(key) if type(key) is str else key.bit_length()) > NAME:
        raise Unfit(f"has names of more than {NAME} characters.")
    return f"{lead}.{key}" if lead else str(key)


def width(code: str) -> int:
    """Bytes of one number in the file."""
    return 2 if code == BFLOAT16 else int(code[1:])


def _check_steps(stream: BinaryIO) -> None:
    """Check a pickle for instructions that a weight file does not need, and for bombs.

    Counts how deep things are nested, because hashing a deep tuple would overflow the stack. Reading the instructions
    also shows that all declared bytes are there, for which Python would reserve memory first.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    mark = -1
    argument: Any
    for count, (step, argument, _) in enumerate(pickletools.genops(stream)):
        if step.name not in _STEPS:
            raise Unfit(f"has the pickle instruction {step.name}, which a weight file has no need of; it is not read.")
        if count > STEPS:
            raise Unfit(f"has a pickle of more than {STEPS} instructions.")
        if step.name == "MARK":
            stack.append(mark)
        elif step.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif step.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if step.name == "MEMOIZE" else argument
            # Python reserves memory for all places up to the highest one
            if place > STEPS or stack[-1] == mark:
                raise Unfit("is damaged: its pickle remembers what is not there.")
            memo[place] = stack[-1]
        else:
            _follow(stack, step, mark)


def _follow(stack: list[int], step: pickletools.OpcodeInfo, mark: int) -> None:
    """Take from the stack of depths what `step` takes, and put back what it leaves."""
    taken: list[int] = []
    below = len(step.stack_before)
    if pickletools.markobject in step.stack_before:
        while (depth := stack.pop()) != mark:
            taken.append(depth)
        below = step.stack_before.index(pickletools.markobject)
    taken += [stack.pop() for _ in range(below)]
    if mark in taken:
        raise Unfit("is damaged: its pickle takes what is not there.")
    depth = 1 + max(taken, default=0)
    if step.name in _FILLS:
        depth = max(taken[-1], 1 + max(taken[:-1], default=0))
    if depth > DEPTH:
        raise Unfit(f"is nested more than {DEPTH} deep.")
    stack += [depth] * len(step.stack_after)


def _replacement(module: str, name: str) -> Any:
    """What a name in a pickle is replaced by: a function, class or mark of this file."""
    if (module, name) in _NAMES:
        return _NAMES[module, name]
    if module == "__torch__" or module.startswith("__torch__."):
        return Module
    raise Unfit(f"names {module[:100]}.{name[:100]}, which a weight file has no need of; it is not read.")


def _encoded(text: Any, codec: Any) -> str:
    """Bytes that were written as text. They stay text: one copy for each use could fill the memory."""
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        raise Unfit("encodes text in another way than latin1, which a weight file has no need of; it is not read.")
    return text


def _ordered(pairs: Any = ()) -> "Ordered":
    """An ordered mapping; Python 2 passed its pairs to the constructor."""
    if type(pairs) not in (list, tuple):
        raise Unfit("is damaged: it has a mapping that is none.")
    mapping = Ordered()
    mapping.pairs = pairs
    return mapping


def _scalar(kind: Any, data: Any) -> "Array":
    scalar = Array()
    scalar.state = (1, (), kind, False, data)
    return scalar


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> "Array":
    array = Array()
    array.state = (1, shape, kind, order == "F", data)
    array.axes = axes if order == "K" else None
    return array


def _rebuilt(
    storage: Any, offset: Any, shape: Any, strides: Any, needs: Any = None, hooks: Any = None, extra: Any = None
) -> "View":
    """A tensor with the same kind of numbers as its storage."""
    if not isinstance(storage, Storage) or extra:
        raise Unfit("has a tensor of an unusual kind (conjugated, negated or without storage), which is not read.")
    return View(storage, storage.code, offset, shape, strides)


def _rebuilt_as(
    storage: Any, offset: Any, shape: Any, strides: Any, needs: Any, hooks: Any, kind: Any, extra: Any = None
) -> "View":
    """A tensor of `kind`, on a storage of bytes."""
    if not isinstance(kind, Kind):
        raise Unfit("is damaged: it has a tensor without a kind of numbers.")
    return _rebuilt(storage, offset, shape, strides, extra=extra)._replace(code=kind.code)


def _first(value: Any, *_: Any) -> Any:
    """The first argument; the others do not change its values."""
    return value


def _nothing(*_: Any) -> None:
    """None, for things that are not tensors and contain none."""


def _are_sizes(*numbers: Any) -> bool:
    """Whether all are integers from 0 to 2^62."""
    return all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)


class Unfit(Exception):
    """Why a file is not read: a sentence without its first word, the name of the file."""


class Kind(NamedTuple):
    """A kind of numbers, as in CODES or BFLOAT16."""

    code: str


class Storage(NamedTuple):
    """A block of `length` numbers; tensors are views of it."""

    code: str
    key: str
    length: int


class View(NamedTuple):
    """A torch tensor; offset and strides count numbers of the kind `code`."""

    storage: Storage
    code: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def checked(self, name: str) -> "View":
        """The same view. Unfit if it is not inside its storage."""
        _, _, offset, shape, strides = self
        if type(shape) not in (tuple, list) or type(strides) not in (tuple, list) or len(shape) != len(strides):
            raise Unfit(f"is damaged: the shape of {name}.")
        if len(shape) > 32 or not _are_sizes(offset, *shape, *strides):
            raise Unfit(f"is damaged: the shape of {name}.")
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        room = self.storage.length * width(self.storage.code)
        if offset * width(self.code) > room or (0 not in shape and (last + 1) * width(self.code) > room):
            raise Unfit(f"is damaged: {name} reaches out of its storage.")
        return self._replace(shape=tuple(shape), strides=tuple(strides))


class Array:
    """A numpy array or scalar, as the five values of its pickled state."""

    __slots__ = ("axes", "state")

    def __init__(self) -> None:
        self.state: Any = None
        self.axes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def checked(self, name: str) -> tuple[str, str, tuple[int, ...], tuple[int, ...], bytes]:
        """Byte order, kind of numbers, shape in the file, order of the axes, and the bytes; Unfit if damaged."""
        if type(self.state) is not tuple or len(self.state) != 5:
            raise Unfit(f"is damaged: {name} is an array without values.")
        _, shape, kind, fortran, data = self.state
        if type(kind) is not Numbers or kind.code not in CODES or kind.order not in ("<", ">", "|", "="):
            raise Unfit(f"holds something else than plain numbers in {name}, which is not read.")
        if type(shape) is not tuple or len(shape) > 32 or not _are_sizes(*shape) or type(fortran) not in (bool, int):
            raise Unfit(f"is damaged: the shape of {name}.")
        if type(data) not in (bytes, bytearray, str) or len(data) != math.prod(shape) * width(kind.code):
            raise Unfit(f"is damaged: {name} has not as many bytes as its shape says.")
        axes = tuple(range(len(shape)))
        if fortran:
            shape, axes = shape[::-1], axes[::-1]
        elif self.axes is not None:
            if type(self.axes) is not tuple or not _are_sizes(*self.axes) or tuple(sorted(self.axes)) != axes:
                raise Unfit(f"is damaged: the shape of {name}.")
            axes = self.axes
        return kind.order, kind.code, shape, axes, data.encode("latin1") if type(data) is str else data


class Numbers:
    """A numpy kind of numbers, with its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        self.code = code if type(code) is str else None
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or type(state[1]) is not str or any(state[2:5]):
            self.code = None
            return
        self.order = state[1]


class Ordered(dict[Any, Any]):
    """An ordered mapping; further state that torch gives it is ignored."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: Any = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Module:
    """An object of TorchScript, as its attributes."""

    __slots__ = ("state",)

    def __new__(cls) -> "Module":
        module = super().__new__(cls)
        module.state = None
        return module

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Function:
    """A function that a pickle may call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Unfit("changes what it may only use, which a weight file has no need of; it is not read.")


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, *, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return _replacement(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        """The storage named ("storage", kind, key, device, length); in early files None follows, instead of a view."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or any(pid[5:]):
            raise Unfit("refers to something else than a storage, which is not read.")
        _, kind, key, _, length = pid[:5]
        if not isinstance(kind, Kind) or type(key) is not str or not re.fullmatch(r"[0-9A-Za-z_]{1,64}", key):
            raise Unfit("is damaged: it refers to a storage of no kind or name.")
        storage = Storage(kind.code, key, length)
        if not _are_sizes(length) or self.storages.setdefault(key, storage) != storage:
            raise Unfit(f"is damaged: it says different things of storage {key}.")
        return storage


_HOLDERS = (Array, View, Module, dict, list, tuple)
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
_KINDS = {"float16": "f2", "float32": "f4", "float64": "f8", "complex64": "c8", "complex128": "c16", "bool": "b1"}
_KINDS |= {"bfloat16": BFLOAT16, "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"}
_KINDS |= {"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8"}
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Function(_ordered),
    ("_codecs", "encode"): _Function(_encoded),
    ("__builtin__", "bytes"): _Function(lambda: b""),
    ("numpy", "ndarray"): _Function(_nothing),
    ("numpy", "dtype"): _Function(Numbers),
    ("torch", "Size"): _Function(_first),
    ("torch", "device"): _Function(_nothing),
    ("torch.storage", "UntypedStorage"): Kind("u1"),
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuilt),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuilt),
    ("torch._utils", "_rebuild_tensor_v3"): _Function(_rebuilt_as),
    ("torch._utils", "_rebuild_parameter"): _Function(_first),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_first),
    ("torch.jit._pickle", "restore_type_tag"): _Function(_first),
}
_NAMES |= {("torch", name): Kind(code) for name, code in (_STORAGES | _KINDS).items()}
_NAMES |= {
    ("torch.jit._pickle", f"build_{kind}list"): _Function(_first) for kind in ("int", "double", "bool", "tensor")
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Function(lambda *_: Array())
    _NAMES[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)
