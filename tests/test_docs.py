"""Docs say what is: pages are current, links lead somewhere, the README's Python runs."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_generated_pages_are_current():
    done = subprocess.run([sys.executable, ROOT / "docs" / "make.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_stale_page_is_noticed(tmp_path):
    import shutil

    copy = tmp_path / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.jpg", "tests"))
    page = copy / "docs" / "commands.md"
    page.write_text(page.read_text().replace("--seed", "--sed"))
    done = subprocess.run([sys.executable, copy / "docs" / "make.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "docs/commands.md is not current; run `make docs`\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readmes_python_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    code = code.replace('"wheat-field"', repr(str(tmp_path / "out")))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (tmp_path / "out" / "process.mp4").stat().st_size > 10_000
    assert len(code.strip().splitlines()) == 4


def test_every_command_and_public_name_is_documented():
    import paintproc

    text = "".join(page.read_text() for page in PAGES)
    assert all(
        f"paintproc {command}" in text
        for command in ("generate", "synth strokes", "synth layers", "render", "weights get", "doctor")
    )
    undocumented = [name for name in paintproc.__all__ if not getattr(paintproc, name).__doc__]
    assert not undocumented


def test_the_design_names_the_rooms_on_disk():
    tree = re.search(r"```\npaintproc/\n(.*?)```", (ROOT / "docs" / "design.md").read_text(), re.S).group(1)
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    found = {
        path.name
        for path in (ROOT / "paintproc").iterdir()
        if path.name not in ("__pycache__", "py.typed") and not path.name.startswith(".")
    }
    assert named == found


def test_no_file_grows_without_a_reason():
    long = {
        path.name: count
        for path in (ROOT / "paintproc").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert set(long) <= {"kernels.py"}
