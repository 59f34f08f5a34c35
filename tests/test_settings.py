"""Settings: one declaration, the same option, file key and help."""

import dataclasses
import json
import os

import pytest
from conftest import ROOT

from paintproc.config.generate import GenerateConfig
from paintproc.config.render import RenderConfig
from paintproc.config.settings import as_json, field_types, option, read_settings_file
from paintproc.errors import InputError, UsageError


@pytest.mark.parametrize("settings", [GenerateConfig, RenderConfig])
def test_every_setting_is_an_option_with_its_help(paintproc, settings):
    command = settings.__name__.removesuffix("Config").lower()
    text = " ".join(paintproc(command, "--help", env=os.environ | {"COLUMNS": "200"}).stdout.split())
    for name, setting in field_types(settings).items():
        assert option(name) in text
        assert setting.help.split(";")[0].rstrip(".") in text.replace(" │ │ ", " ")
        assert f"─ {setting.group} ─" in text


@pytest.mark.parametrize("settings", [GenerateConfig, RenderConfig])
def test_settings_survive_a_record(tmp_path, settings):
    path = tmp_path / "sequence.json"
    path.write_text(json.dumps({"settings": as_json(settings())}))
    assert settings(**read_settings_file(path, settings)) == settings()


def test_formats_are_a_set():
    assert GenerateConfig(format=("svg", "mp4", "svg")).format == ("mp4", "svg")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, "--size"),
        ({"num_frames": 1}, "--num-frames"),
        ({"strokes": -1}, "--strokes"),
        ({"format": ()}, "--format"),
        ({"format": ("avi",)}, "--format"),
        ({"finish": "quickly"}, "--finish"),
        ({"duration": float("nan")}, "--duration"),
    ],
)
def test_impossible_settings_name_the_option(changes, words):
    with pytest.raises(UsageError, match=words):
        GenerateConfig(**changes)


def test_stroke_count_follows_the_canvas():
    counts = [GenerateConfig().stroke_count(side, side) for side in (1, 64, 512, 1024)]
    assert counts == [50, 250, 2000, 4000]
    assert GenerateConfig(strokes=7).stroke_count(512, 512) == 7


def test_unreadable_settings(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_settings_file(tmp_path / "none.toml", GenerateConfig)
    (tmp_path / "a.toml").write_text("size = [1]")
    with pytest.raises(UsageError, match="wrong type"):
        read_settings_file(tmp_path / "a.toml", GenerateConfig)


def test_settings_are_frozen_and_need_only_the_standard_library():
    assert all(dataclasses.fields(c) and c.__dataclass_params__.frozen for c in (GenerateConfig, RenderConfig))
    for path in (ROOT / "paintproc" / "config").glob("*.py"):
        lines = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert {line.split(".")[0] for line in lines} <= {
            "collections", "dataclasses", "difflib", "json", "paintproc", "pathlib", "re", "tomllib", "types",
            "typing",
        }  # fmt: skip
