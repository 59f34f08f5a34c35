"""Inputs: what is found, in which order, what is known of it, and what is told apart from it."""

import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from paintproc.errors import InputError, UsageError
from paintproc.synth import sources
from paintproc.synth.sources import find_sources, inputs_digest, read_source


def picture(number: int, size=(20, 16)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "art" / "b").mkdir(parents=True)
    (tmp_path / "art" / ".cache").mkdir()
    for number, name in enumerate(("c.png", "a.PNG", "b/z.png", ".cache/no.png", ".hidden.png")):
        (tmp_path / "art" / name).write_bytes(picture(number))
    (tmp_path / "art" / "notes.txt").write_text("no picture")
    return tmp_path / "art"


def tar_of(path, members) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_folder_is_looked_through_in_one_order(folder, monkeypatch):
    names = [source.name for source in find_sources([str(folder)])]
    assert names == ["a.PNG", "b/z.png", "c.png"]
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((b, f, sorted(n, reverse=True)) for b, f, n in walk(*a, **k)))
    assert [source.name for source in find_sources([str(folder)])] == names


def test_names_hold_no_absolute_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    found = [find_sources([name])[0].name for name in (str(folder / "c.png"), "art/c.png", "./art/c.png")]
    assert found == ["c.png", "art/c.png", "art/c.png"]


def test_patterns(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert [source.name for source in find_sources(["art/**/*.png"])] == ["art/b/z.png", "art/c.png"]
    (folder / "[x].png").write_bytes(picture(9))
    assert [source.name for source in find_sources(["art/[x].png"])] == ["art/[x].png"], "a name that exists is a name"
    with pytest.raises(InputError, match="No file fits"):
        find_sources(["art/*.gif"])


def test_an_input_that_cannot_be_read_is_an_input(folder, tmp_path):
    (folder / "dangling.png").symlink_to("nowhere")
    found = {source.name: source for source in find_sources([str(folder), str(tmp_path / "missing.png")])}
    assert found["art/dangling.png"].broken and found["missing.png"].broken
    with pytest.raises(InputError, match="does not exist"):
        read_source(found["missing.png"])


def test_tars_by_pattern_and_what_is_empty_among_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tar", "b.tar"):
        tar_of(tmp_path / name, [("x.png", name.encode()), ("._x.png", b"of a Macintosh")])
    (tmp_path / "empty").mkdir()
    found = find_sources(["*.tar", "empty", "no*.png"])
    assert [(source.name, bool(source.broken)) for source in found] == [
        ("a.tar/x.png", False), ("b.tar/x.png", False), ("empty", True), ("no*.png", True)]  # fmt: skip


def test_datasets_in_a_folder_are_left_out(folder):
    before = find_sources([str(folder)])
    (folder / "out" / "train").mkdir(parents=True)
    (folder / "out" / "dataset.json").write_text("{}")
    (folder / "out" / "train" / "000.png").write_bytes(picture(3))
    assert find_sources([str(folder)]) == before


def test_nothing_to_do_is_said(tmp_path):
    with pytest.raises(UsageError, match="No picture is named"):
        find_sources([])
    with pytest.raises(UsageError, match="shell variable"):
        find_sources([""])
    with pytest.raises(InputError, match="without images"):
        find_sources([str(tmp_path)])


def test_of_equal_files_the_first_counts(folder, tmp_path):
    shutil.copy(folder / "a.PNG", folder / "copy.png")
    same_size = bytearray((folder / "a.PNG").read_bytes())
    same_size[-20] ^= 1
    (folder / "other.png").write_bytes(bytes(same_size))
    tar_of(tmp_path / "more.tar", [("x.png", (folder / "c.png").read_bytes()), ("y.png", picture(77))])
    found = {source.name: source.skip for source in find_sources([str(folder), str(tmp_path / "more.tar")])}
    assert found.pop("art/copy.png") == "the same picture as art/a.PNG"
    assert found.pop("more.tar/x.png") == "the same picture as art/c.png"
    assert not any(found.values())


def test_a_webdataset_tar(tmp_path):
    facts = {"caption": "a\nwall", "license": "CC0", "url": "http://x"}
    tar_of(
        tmp_path / "set.tar",
        [
            ("0001.jpg", b"one"), ("0001.json", json.dumps(facts).encode()), ("0002.png", b"two"),
            ("0002.txt", b" a green hill "), ("0003.cls", b"7"), ("../0004.png", b"four"), ("0005.json", b"{"),
        ],
    )  # fmt: skip
    found = find_sources([str(tmp_path / "set.tar")])
    assert [source.name for source in found] == ["set.tar/0001.jpg", "set.tar/0002.png", "set.tar/../0004.png"]
    assert [read_source(source) for source in found] == [b"one", b"two", b"four"]
    assert found[0].facts == {"prompt": "a wall", "license": "CC0", "origin": "http://x"}
    assert found[1].facts == {"prompt": "a green hill"}


def test_a_tar_that_is_cut_off_gives_what_is_there(tmp_path):
    tar_of(tmp_path / "set.tar", [(f"{k}.png", bytes([k]) * 3000) for k in range(5)])
    data = (tmp_path / "set.tar").read_bytes()
    (tmp_path / "set.tar").write_bytes(data[:9000])
    found = find_sources([str(tmp_path / "set.tar")])
    assert [bool(source.broken) for source in found] == [False, False, True]
    assert read_source(found[1]) == bytes([1]) * 3000
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 100)
    assert [bool(source.broken) for source in find_sources([str(tmp_path / "no.tar")])] == [True]


def test_metadata_of_an_imagefolder(folder):
    row = {"file_name": "c.png", "text": "a chair", "license": "public domain", "origin": "museum", "width": 3}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n\n")
    (folder / "b" / "metadata.csv").write_text('file_name,caption,licence\nz.png,"two\nlines",CC BY\n')
    found = {source.name: source.facts for source in find_sources([str(folder)])}
    assert found["c.png"] == {"prompt": "a chair", "license": "public domain", "origin": "museum"}
    assert found["b/z.png"] == {"prompt": "two lines", "license": "CC BY"}
    assert found["a.PNG"] == {}
    for damaged in ("{", "[" * 100_000, '{"file_name": "c.png", "text": "\\ud800"}\n7'):
        (folder / "metadata.jsonl").write_text(damaged)
        (*pictures, metadata) = find_sources([str(folder)])
        assert "metadata.jsonl cannot be read" in metadata.broken and not any(source.broken for source in pictures)
    (folder / "metadata.jsonl").write_text('{"file_name": "c.png", "text": "half \\ud800"}')
    assert {source.name: source.facts for source in find_sources([str(folder)])}["c.png"] == {"prompt": "half ?"}


def test_a_name_that_is_no_text_is_spelled_out(tmp_path):
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / os.fsdecode(b"\xff.png")).write_bytes(picture(1))
    (source,) = find_sources([str(tmp_path / "art")])
    assert source.name == "\\xff.png" and read_source(source) == picture(1)


def test_the_list_of_inputs_has_a_digest(folder):
    before = inputs_digest(find_sources([str(folder)]))
    assert before == inputs_digest(find_sources([str(folder)]))
    (folder / "new.png").write_bytes(picture(5))
    after = inputs_digest(find_sources([str(folder)]))
    (folder / "new.png").write_bytes(picture(5) + b"longer")
    assert len({before, after, inputs_digest(find_sources([str(folder)]))}) == 3


def test_the_system_is_asked_again(folder, monkeypatch):
    """A file that cannot be read just now is tried again; one that is not there is not."""
    (source, *_) = find_sources([str(folder)])
    opened = type(source.path).open
    left = [2]

    def failing(path, *rest, **options):
        if path == source.path and left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return opened(path, *rest, **options)

    monkeypatch.setattr(sources, "PAUSE", 0)
    monkeypatch.setattr(type(source.path), "open", failing)
    assert read_source(source) == picture(1)
    left[0] = 99
    with pytest.raises(OSError, match="Input/output"):
        read_source(source)
    assert left[0] == 96
