"""The player page: what is in it, and that a browser runs it."""

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from paintproc.metrics.frames import psnr
from paintproc.process.player import player_page
from paintproc.sequence import PaintingSequence
from paintproc.version import __version__

STAGES = ["ground", "block-in", "block-in", "detail", "detail", "detail"]
CAPTIONS = [
    "</p></title>",
    '<script>alert(1)</script> & "quotes"',
    "</script><!-- <script>",
    "it's 5 < 6 & $title \\ ${data}",
    '" onload="alert(1)',
    "work out the details",
]
URI = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)")


class Page(HTMLParser):
    """The elements of a page, by tag with attributes and by id with text; complains about a wrong end tag."""

    VOID = ("meta", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str | None, str] = {}
        self.open: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs).get("id", tag)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            name = self.open[-1][1]
            self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def small_sequence(frames: list[np.ndarray], **info: object) -> PaintingSequence:
    moments = np.linspace(0, 1, len(frames))
    return PaintingSequence(
        frames, moments, STAGES[: len(frames)], CAPTIONS[: len(frames)], 3600 * moments, info=dict(info)
    )


def noisy_frames(count: int = 6) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 30, 40, 3), dtype=np.uint8))


def smooth_frame() -> np.ndarray:
    y, x = np.mgrid[0:60, 0:80]
    return np.stack([x * 3, y * 4, 200 - x - y], axis=2).astype(np.uint8)


def decoded(kind_and_data: tuple[str, str]) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(kind_and_data[1]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_every_frame_is_in_the_page_once():
    text = player_page(small_sequence(noisy_frames()), "a painting")
    assert len(URI.findall(text)) == text.count("data:image/") == 6
    images = Page(text).all("img")
    assert [image["alt"] for image in images] == [
        f"frame {k}, {stage}: {caption}" for k, (stage, caption) in enumerate(zip(STAGES, CAPTIONS, strict=True))
    ]


def test_titles_captions_and_stages_are_text_and_nothing_else():
    title = "<b>$count</b> & </title>"
    plain = small_sequence(noisy_frames(), method="plain", seed=7)
    stages = [f'<i title="{stage}">' for stage in STAGES]
    text = player_page(replace(plain, stages=stages, info={"method": "<u>", "seed": 7}), title)
    plain = replace(plain, captions=["plain"] * 6)
    page, plain_page = Page(text), Page(player_page(plain, "plain"))
    assert [(tag, sorted(names)) for tag, names in page.tags] == [
        (tag, sorted(names)) for tag, names in plain_page.tags
    ]
    assert page.texts["title"] == page.texts["h1"] == title
    assert page.texts["caption"] == CAPTIONS[0]
    for words in (*CAPTIONS[:3], CAPTIONS[4], title, "<i title", "<u>"):
        assert words not in text
    assert len(page.all("script")) == 1
    assert "<" not in re.search(r"const frames = (.*);\n", text)[1]


def test_the_parser_sees_a_page_that_is_not_sound():
    with pytest.raises(AssertionError):
        Page("<div><p></div>")


def test_nothing_is_loaded_from_elsewhere():
    text = player_page(small_sequence(noisy_frames()), "a painting")
    assert not re.findall(r"https?://", URI.sub("", text))
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "base", "iframe", "object", "embed")
        assert all((value or "").startswith("data:") for name, value in attributes.items() if name in ("src", "href"))
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(
    "frame, kind", [(smooth_frame(), None), (np.full((60, 80, 3), (200, 90, 30), np.uint8), "png")]
)
def test_an_embedded_frame_is_the_picture(frame, kind):
    found = URI.findall(player_page(small_sequence([frame, frame]), "a painting"))
    assert kind in (None, found[0][0])
    assert psnr(decoded(found[0]), frame) > 25
    assert psnr(decoded(found[0])[..., ::-1], frame) < 25  # red and blue exchanged would be seen


def test_noise_is_embedded_as_jpeg():
    assert {kind for kind, _ in URI.findall(player_page(small_sequence(noisy_frames()), "noise"))} == {"jpeg"}


def test_one_button_a_run_of_equal_stages():
    page = Page(player_page(small_sequence(noisy_frames()), "a painting"))
    runs = [button for button in page.all("button") if "data-first" in button]
    assert [(run["data-first"], run["data-last"]) for run in runs] == [("0", "0"), ("1", "2"), ("3", "5")]
    assert runs[1]["aria-label"] == "block-in, frames 1 to 2"


def test_controls_are_labelled():
    page = Page(player_page(small_sequence(noisy_frames()), "a painting"))
    assert all(control.get("aria-label") for tag in ("button", "input") for control in page.all(tag))
    assert page.all("input")[0]["max"] == "5"


def test_it_says_what_it_is():
    page = Page(player_page(small_sequence(noisy_frames(), method="coarse-to-fine", seed=3), "a painting"))
    expected = f"synthetic process, not a recording · paintproc {__version__} · method coarse-to-fine · seed 3"
    assert page.texts["footer"] == expected
    page = Page(player_page(small_sequence(noisy_frames()), "a painting"))
    assert page.texts["footer"] == f"synthetic process, not a recording · paintproc {__version__}"


def test_a_single_frame_cannot_be_played():
    page = Page(player_page(small_sequence(noisy_frames(1)), "blank"))
    assert all("disabled" in page.all(tag)[0] for tag in ("button", "input"))


CHECK = """<script>
addEventListener("load", () => {
  const log = [], now = () => log.push(document.querySelector("#slider").value);
  const press = (key) => { document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })); now(); };
  ["ArrowLeft", "ArrowRight", "ArrowRight", "Home", "ArrowLeft"].forEach(press);
  document.querySelectorAll(".stages button")[1].click(); now();
  press("End"); press(" ");
  setTimeout(now, 1250);
  setTimeout(() => { now(); log.push(document.querySelector("#play").textContent, location.hash);
    document.querySelector("footer").textContent = log.join(","); }, 4000);
});
</script>"""


@pytest.fixture
def rendered(tmp_path):
    """Run a page in a browser at an address's hash, and parse what it has become."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium to run the page in")

    def run(text: str, name: str) -> Page:
        path = tmp_path / "player.html"
        path.write_text(text, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
        options += ["--virtual-time-budget=6000", "--dump-dom", f"{path.as_uri()}{name}"]
        result = subprocess.run([browser, *options], capture_output=True, timeout=120, check=True)
        return Page(result.stdout.decode("utf-8"))

    return run


def test_a_browser_opens_the_frame_of_the_address(rendered):
    page = rendered(player_page(small_sequence(noisy_frames()), "a painting"), "#frame=3")
    assert page.texts["caption"] == CAPTIONS[3]
    assert page.texts["status"] == "detail · 36 min · frame 3 of 5"
    assert [k for k, image in enumerate(page.all("img")) if "shown" in image["class"].split()] == [3]


def test_a_browser_plays_and_steps(rendered):
    text = player_page(small_sequence(noisy_frames()), "a painting")
    page = rendered(text.replace("</body>", f"{CHECK}</body>"), "#frame=99")
    assert page.texts["footer"] == "4,5,5,0,0,1,5,0,2,5,Play,#frame=5"
