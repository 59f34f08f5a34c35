"""Pickles that would do something, lie or are damaged; none is ever run."""

import functools
import importlib.util
import io
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_tensors import check_same, flipped, read, refuse, safetensors

from paintproc.errors import InputError
from paintproc.weights import pickles
from paintproc.weights.tensors import read_tensors


def canaries(marker: Path) -> dict[str, bytes]:
    """Pickles that create `marker` where they are run."""
    touch = f"open({str(marker)!r}, 'w')"

    class Call:
        def __init__(self, function, *arguments):
            self.how = function, arguments

        def __reduce__(self):
            return self.how

    def text(module: str, name: str, argument: str) -> bytes:
        return (
            b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X" + struct.pack("<I", len(argument)) + argument.encode()
        )

    found = {
        "system": pickle.dumps(Call(os.system, f"touch {marker}")),
        "exec": pickle.dumps(Call(exec, touch)),
        "eval": pickle.dumps(Call(eval, touch)),
        "in a dict": pickle.dumps({"a": np.ones(2), "b": [Call(exec, touch)]}),
        "partial": pickle.dumps(Call(functools.partial(exec, touch))),
        "posix": text("posix", "system", f"touch {marker}") + b"\x85R.",
        "python 2": text("__builtin__", "eval", touch) + b"\x85R.",
        "build": text("os", "system", f"touch {marker}") + b"\x85R}b.",
        "numpy": pickle.dumps(Call(np.load, str(marker))),
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0b_core.os.system\x93\x8c"
        + bytes([len(f"touch {marker}")])
        + f"touch {marker}".encode()
        + b"\x85R.",
        "instance": b"\x80\x02(X" + struct.pack("<I", len(touch)) + touch.encode() + b"i__builtin__\nexec\n.",
        "object": b"\x80\x02(c__builtin__\nexec\nX" + struct.pack("<I", len(touch)) + touch.encode() + b"o.",
    }
    return found


def torch_zip(content: bytes, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        bundle.writestr("archive/data.pkl", content)
        for name, data in members.items():
            bundle.writestr(f"archive/{name.replace('_', '/')}", data)
    return out.getvalue()


def test_nothing_is_run(tmp_path):
    marker = tmp_path / "marker"
    harmless = pickle.dumps({"a": np.ones(2)}, 2)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    for name, payload in canaries(marker).items():
        system = pickle.dumps({"little_endian": True}, 2)
        places = [payload, torch_zip(payload), torch_zip(harmless, **{"constants.pkl": payload})]
        places += [magic + payload, magic + system + payload, magic + system + harmless + payload]
        for data in places:
            refuse(tmp_path, data)
            assert not marker.exists(), name
    refuse(
        tmp_path, canaries(marker)["system"], r"names posix\.system, which a weight file has no need of; it is not read"
    )


@pytest.mark.parametrize("name", ["system", "exec", "in a dict", "posix", "build", "instance", "object"])
def test_a_plain_reader_runs_them(tmp_path, name):
    """The payloads work: what the test above sees is the guard and not a dud."""
    marker = tmp_path / "marker"
    payload = canaries(marker)[name]
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=payload, check=False, stderr=subprocess.DEVNULL)
    assert marker.exists()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def array(
    code: str = "f4", shape: bytes = b"K\x02\x85", data: bytes = bytes(8), order: str = "<", more: bytes = b"NNN"
) -> bytes:
    """A pickled array, piece by piece."""
    start = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R(K\x03" + text(order) + more + number(-1) * 2 + b"K\x00tb"
    return start + b"(K\x01" + shape + kind + b"\x89C" + bytes([len(data)]) + data + b"tb."


def test_arrays_that_lie(tmp_path):
    check_same(read(tmp_path, array()), {"": np.zeros(2, np.float32)})
    for shape in (
        b"K\x03\x85",
        number(-2) + b"\x85",
        b"K\x02",
        b"]",
        b"N",
        b"\x88\x85",
        b"(" + b"K\x01" * 40 + b"K\x02t",
    ):
        refuse(tmp_path, array(shape=shape), "damaged")
    huge = b"\x8a\x09" + (1 << 64).to_bytes(9, "little")
    refuse(tmp_path, array(shape=huge + b"\x85"), "damaged")
    refuse(tmp_path, array(shape=huge + b"K\x00\x86", data=b""), "damaged")
    for code in ("O8", "O", "V8", "U2", "S8", "M8[ns]", "f4,f4", "f16", "x", "", "b"):
        refuse(tmp_path, array(code), "something else than plain numbers")
    refuse(tmp_path, array(order="x"), "plain numbers")
    refuse(tmp_path, array(more=b"}" + text("a") + b"K\x01sNN"), "plain numbers")
    refuse(tmp_path, array()[: array().index(b"(")] + b".", "without values")
    for value in (np.array([None, 1]), np.array(["a"]), np.zeros(2, [("a", "f4")]), np.array(["2020"], "M8[D]")):
        refuse(tmp_path, pickle.dumps({"a": value}), "plain numbers")


def test_pickles_that_lie(tmp_path):
    cases = {
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"a.": "damaged",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.": "damaged",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"a.": "damaged",
        b"\x80\x03B" + struct.pack("<I", 0xFFFFFFFF) + b"a.": "damaged",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.": "damaged",
        b"\x80\x02Nr" + struct.pack("<I", 0x7FFFFFFF) + b".": "remembers what is not there",
        b"\x80\x02h\x05.": "damaged",
        b"\x80\x02\x82\x01.": "EXT1",
        b"\x80\x02P1\n.": "PERSID",
        b"\x80\x02I1\n.": "INT",
        b"\x80\x05\x97.": "NEXT_BUFFER",
        b"\x80\x04)\x81}\x92.": "damaged|NEWOBJ_EX",
        b"\x80\x02(\x85.": "takes what is not there",
        b"\x80\x02.": "damaged",
        b"\x80\x02N": "damaged",
        b"\x80": "damaged",
        b"\x80\x09N.": "damaged",
        b"\x80\x02N.N.": "goes on after its end",
        b"\x80\x02" + text("storage") + b"Q.": "something else than a storage",
        b"\x80\x02c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.": "another way than latin1",
        b"\x80\x02c_codecs\nencode\n" + text("x") + text("hex") + b"\x86R.": "another way than latin1",
        b"\x80\x02cnumpy\ndtype\n}" + text("__code__") + b"Nsb.": "changes what it may only use",
        b"\x80\x02cnumpy\ndtype\nN}" + text("__code__") + b"Ns\x86b.": "changes what it may only use",
        b"\x80\x02ctorch\nfloat32\n}b.": "damaged",
        b"\x80\x02c__torch__\nA\nN}" + text("__init__") + b"Ns\x86b.": "damaged",
        b"\x80\x02c__torch__\nA\n]\x85R.": "damaged",
        b"\x80\x02cnumpy\nsave\n.": r"names numpy\.save",
        b"\x80\x02c\n\n.": "damaged",
        b"\x80\x02NN\x86N\x85R.": "damaged",
        b"\x80\x02]N}s.": "damaged",
        b"\x80\x02}]Ns.": "damaged",
    }
    for data, match in cases.items():
        refuse(tmp_path, data, match)


def test_bombs(tmp_path, monkeypatch):
    refuse(tmp_path, b"\x80\x02N" + b"\x85" * 100_000 + b".", "nested more than 200 deep")
    refuse(tmp_path, b"\x80\x02}N" + b"\x85" * 500_000 + b"Ns.", "nested more than 200 deep")
    monkeypatch.setattr(pickles, "STEPS", 1000)
    refuse(tmp_path, b"\x80\x02" + b"}" * 1100 + b".", "instructions")
    laughs = b"\x80\x02]q\x00"
    for k in range(60):
        laughs += b"(" + b"h" + bytes([k]) + b"h" + bytes([k]) + b"tq" + bytes([k + 1])
    refuse(tmp_path, laughs + b".", "too many things")
    refuse(tmp_path, b"\x80\x02]q\x00h\x00a.", "too deep")
    refuse(tmp_path, b"\x80\x02]q\x00(h\x00h\x00e.", "too deep")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("archive/data.pkl", pickle.dumps({}))
        bundle.writestr("archive/data/0", bytes(80 << 20))
    refuse(tmp_path, data.getvalue(), "far more than its size")


def test_why_deep_tuples_are_refused():
    """A plain reader overflows its stack on one as a key."""
    code = r"import pickle; pickle.loads(b'\x80\x02}N' + b'\x85' * 5_000_000 + b'Ns.')"
    assert subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL).returncode < 0


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n%s" + text("cpu") + b"%stQ"


def tensor(key="0", length=6, offset=0, shape=(2, 3), strides=(3, 1), name="_rebuild_tensor_v2", storage=None) -> bytes:
    """The pickle of a torch checkpoint with one tensor `a`."""
    sides = b"(" + b"".join(number(side) for side in shape) + b"t"
    steps = b"(" + b"".join(number(stride) for stride in strides) + b"t"
    storage = STORAGE % (text(key), number(length)) if storage is None else storage
    rest = number(offset) + sides + steps + b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}" + text("a") + b"ctorch._utils\n" + name.encode() + b"\n(" + storage + rest + b"tRs."


def test_torch_zips_by_hand(tmp_path):
    content = np.arange(6, dtype="<f4")
    data = {"data_0": content.tobytes()}
    check_same(read(tmp_path, torch_zip(tensor(), **data)), {"a": content.reshape(2, 3)})
    check_same(
        read(tmp_path, torch_zip(tensor(shape=(2, 2), strides=(0, 2), offset=1), **data)), {"a": content[[[1, 3]] * 2]}
    )
    check_same(read(tmp_path, torch_zip(tensor(shape=(), strides=(), offset=5), **data)), {"a": content[5]})
    check_same(read(tmp_path, torch_zip(tensor(shape=(0, 9), strides=(9, 1)), **data)), {"a": np.zeros((0, 9), "f4")})
    check_same(read(tmp_path, torch_zip(tensor(), byteorder=b"little", **data)), {"a": content.reshape(2, 3)})
    refuse(tmp_path, torch_zip(tensor(), byteorder=b"big", **data), "damaged|byte order")
    refuse(tmp_path, torch_zip(tensor(), byteorder=b"bigger", **data), "byte order")


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 7, "shape": (0,), "strides": (1,)},
        {"strides": (3, 2)},
        {"strides": (-3, 1)},
        {"strides": (3,)},
        {"shape": (2, -3)},
        {"shape": (1 << 30, 1 << 30)},
        {"shape": (1 << 30, 1 << 30), "strides": (0, 0)},
        {"shape": (1,) * 33, "strides": (1,) * 33},
        {"length": 5},
        {"length": 7},
        {"length": -6},
        {"length": 1 << 30},
        {"key": "1"},
        {"key": "../data/0"},
        {"key": "0\0"},
        {"key": ""},
        {"name": "_rebuild_sparse_tensor"},
        {"name": "_rebuild_tensor_v3"},
        {"name": "_rebuild_qtensor"},
        {"storage": b"N"},
        {"storage": b"(" + text("storage") + b"Nttb"},
        {"storage": STORAGE % (b"K\x00", b"K\x06")},
        {"storage": STORAGE % (text("0"), b"\x88")},
        {"storage": STORAGE % (text("0"), text("6"))},
        {"storage": (STORAGE % (text("0"), b"K\x06")).replace(b"FloatStorage", b"float9")},
        {"storage": (STORAGE % (text("0"), b"K\x06")).replace(b"ctorch\nFloatStorage\n", b"N")},
    ],
    ids=str,
)
def test_torch_zips_that_lie(tmp_path, change):
    refuse(tmp_path, torch_zip(tensor(**change), data_0=np.arange(6, dtype="<f4").tobytes()))


def test_views_and_sizes_are_checked_before_anything_is_made(tmp_path):
    content = np.arange(6, dtype="<f4").tobytes()
    for change in ({"offset": 1}, {"strides": (3, 2)}, {"shape": (1 << 30, 3)}, {"length": 5}):
        refuse(tmp_path, torch_zip(tensor(**change), data_0=content), "a reaches out of its storage")
    for length in (7, 1 << 30):
        refuse(tmp_path, torch_zip(tensor(length=length), data_0=content), "data/0 is missing or has another size")
    spread = tensor(shape=(1 << 30, 1 << 30), strides=(0, 0))
    refuse(tmp_path, torch_zip(spread, data_0=content), "far more than its size")


def test_zips_that_are_no_checkpoints(tmp_path):
    refuse(tmp_path, torch_zip(tensor()), "data/0 is missing")
    good = torch_zip(tensor(), data_0=bytes(24))
    out = io.BytesIO(good)
    with zipfile.ZipFile(out, "a") as bundle, pytest.warns(UserWarning):
        bundle.writestr("archive/data/0", bytes(24))
    refuse(tmp_path, out.getvalue(), "two members of one name")
    with zipfile.ZipFile(out, "w") as bundle:
        bundle.writestr("a/data.pkl", tensor())
        bundle.writestr("b/data.pkl", tensor())
    refuse(tmp_path, out.getvalue(), "no torch checkpoint")
    start = good.rindex(b"archive/data/0") - 46
    for place, value in ((8, 1), (10, 14), (16, 1), (20, 23), (24, 23), (42, 1)):
        data = bytearray(good)
        data[start + place] = value
        refuse(tmp_path, bytes(data))


def test_what_is_no_weight_file(tmp_path):
    for data in (b"", b"hello", bytes(100), b"PK\x03\x04", b"\x80\x02", b"\xff" * 50):
        refuse(tmp_path, data)
    if importlib.util.find_spec("h5py"):
        refuse(tmp_path, b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match="absent is not there"):
        read_tensors(tmp_path / "absent")
    with pytest.raises(InputError):
        read_tensors(tmp_path)


def early(**changes) -> bytes:
    """A torch file from before 1.6."""
    parts = {"version": 1001, "system": {"little_endian": True}, "keys": ["0"], "length": 6, **changes}
    out = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(parts["version"], 2) + pickle.dumps(parts["system"], 2)
    out += tensor(storage=(STORAGE % (text("0"), number(6)))[:-2] + parts.get("view", b"N") + b"tQ")
    return (
        out + pickle.dumps(parts["keys"], 2) + struct.pack("<q", parts["length"]) + np.arange(6, dtype="<f4").tobytes()
    )


def test_early_torch_files(tmp_path):
    check_same(read(tmp_path, early()), {"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    for change in (
        {"version": 1000},
        {"system": {"little_endian": False}},
        {"system": 3},
        {"keys": []},
        {"keys": ["1"]},
    ):
        refuse(tmp_path, early(**change))
    for change in ({"keys": 0}, {"keys": [[]]}, {"length": 5}, {"length": -1}, {"length": 1 << 60}, {"view": b"(NNNt"}):
        refuse(tmp_path, early(**change))
    refuse(tmp_path, early() + b"x", "goes on")
    refuse(tmp_path, early()[:-1], "another size")


def samples(tmp_path: Path) -> dict[str, bytes]:
    tree = {"a": {"b": np.arange(6.0).reshape(2, 3), "c": [np.ones(2, np.int8)]}, "d": np.float32(2)}
    found = {f"pickle {protocol}": pickle.dumps(tree, protocol) for protocol in (2, 4, 5)}
    found["torch"] = torch_zip(tensor(), data_0=np.arange(6, dtype="<f4").tobytes(), byteorder=b"little")
    found["early"] = early()
    found["safetensors"] = safetensors(tmp_path)
    return found


@pytest.mark.parametrize("kind", ["pickle 2", "pickle 4", "pickle 5", "torch", "early", "safetensors"])
def test_damage_ends_in_a_sentence(tmp_path, kind):
    data = samples(tmp_path)[kind]
    for cut in {*range(0, len(data), 5), len(data) - 1}:
        refuse(tmp_path, data[:cut])
    chance = random.Random(kind)
    for _ in range(250):
        try:
            tensors = read(tmp_path, flipped(data, chance))
        except InputError:
            continue
        assert all(isinstance(value, np.ndarray) and value.nbytes < 1000 for value in tensors.values())


def test_damaged_pickles_inside_whole_zips(tmp_path):
    """The zip's checksum would hide most of it."""
    chance = random.Random(5)
    for _ in range(500):
        data = torch_zip(flipped(tensor(), chance), data_0=bytes(24))
        try:
            read(tmp_path, data)
        except InputError:
            continue


def test_random_instructions(tmp_path, monkeypatch):
    """Pickles put together from instructions that the reader allows, and from names it knows."""
    monkeypatch.setattr(pickles, "STEPS", 5000)
    chance = random.Random(6)
    names = [f"c{module}\n{name}\n".encode() for module, name in pickles._NAMES] + [b"c__torch__.a\nB\n"]
    codes = {step.name: step.code.encode("latin1") for step in pickletools.opcodes}
    simple = [codes[step.name] for step in pickletools.opcodes if step.name in pickles._STEPS and step.arg is None]
    values = [
        b"K\x01",
        b"N",
        b")",
        b"]",
        b"}",
        b"\x88",
        text("storage"),
        text("0"),
        text("latin1"),
        b"C\x02ab",
        b"\x8a\x01\xff",
    ]
    for _ in range(1000):
        parts = [chance.choice(chance.choice([simple, names, values])) for _ in range(chance.randrange(2, 40))]
        try:
            read(tmp_path, b"\x80\x04" + b"".join(part for part in parts if part != b".") + b".")
        except InputError:
            continue
