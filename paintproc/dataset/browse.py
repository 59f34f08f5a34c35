"""What is in a dataset: in numbers, on a contact sheet, and as a page to browse."""

import base64
import html
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paintproc.dataset.folder import read_summary
from paintproc.dataset.items import StoredItem
from paintproc.dataset.layout import SPLITS
from paintproc.dataset.read import Dataset
from paintproc.png import encode_png

MOST = 500
"""Most sequences on the page; more would make it slow to open."""
ON_SHEET = 12
"""Sequences on the contact sheet."""
MOMENTS = 6
"""Frames that are shown of a sequence, beside its picture."""
SIDE = 112
"""Height of a strip, in pixels."""
WIDEST = 200
"""Most pixels across a frame of a strip."""
PAGE, SHEET = "index.html", "sheet.png"


def describe(dataset: Path) -> dict[str, Any]:
    """How many sequences there are, by split, method, license, origin, size and number of frames.

    InputError if it is no finished dataset.
    """
    summary = read_summary(dataset)
    found: dict[str, Counter[str]] = {key: Counter() for key in ("method", "license", "origin", "size", "frames")}
    pictures: set[str] = set()
    for split in (split for split in SPLITS if split in summary["splits"]):
        index = Dataset(dataset, split)
        for number in range(len(index)):
            line = index.line(number)
            for key in ("method", "license", "origin"):
                found[key][str(line.get(key) or "unknown")] += 1
            size = line.get("size")
            found["size"][f"{size[0]} x {size[1]}" if size else "unknown"] += 1
            found["frames"][str(len(line["file_names"]))] += 1
            pictures.add(line.get("picture_file_name") or line["sha256"])
    counted = {key: dict(counts.most_common()) for key, counts in found.items()}
    facts = {key: summary.get(key) for key in ("format", "kind", "version")}
    return facts | {"counts": summary["counts"], "splits": summary["splits"], "pictures": len(pictures)} | counted


def browse(
    dataset: Path, folder: Path, about: Mapping[str, Any], progress: Callable[[float], None] = lambda done: None
) -> int:
    """Write the contact sheet and the page into an existing folder. Returns how many sequences the page shows.

    Of more than `MOST` sequences every n-th is shown.
    """
    places = [
        (split, number)
        for split in (Dataset(dataset, name) for name in SPLITS if name in about["splits"])
        for number in range(len(split))
    ]
    shown = [places[k] for k in _spread(len(places), MOST)]
    on_sheet = set(_spread(len(shown), ON_SHEET))
    cards, rows = list[str](), list[tuple[np.ndarray, str]]()
    for count, (split, number) in enumerate(shown):
        item = split.item(number)
        strip = _strip(item)
        cards.append(_card(item, split.split, strip))
        if count in on_sheet:
            rows.append((strip, _label(item)))
        progress((count + 1) / len(shown))
    title = dataset.resolve().name
    text = {"Software": "paintproc"}
    (folder / SHEET).write_bytes(encode_png(_sheet(rows), text))
    (folder / PAGE).write_text(_page(title, about, cards, len(places)), encoding="utf-8", newline="\n")
    return len(shown)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def _strip(item: StoredItem) -> np.ndarray:
    """Some frames and the picture side by side, uint8 [SIDE, W, 3]; a line divides the picture from the last frame."""
    count = len(item.layout.frames)
    parts = [_thumbnail(item.frame(k)) for k in _spread(count, MOMENTS)]
    picture = item.picture()
    if picture is not None:
        parts += [np.full((SIDE, 4, 3), 90, np.uint8), _thumbnail(picture)]
    gap = np.full((SIDE, 3, 3), 250, np.uint8)
    return np.concatenate([piece for part in parts for piece in (part, gap)][:-1], 1)


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A frame of the height of a strip; of a very wide one its middle."""
    height, width = pixels.shape[:2]
    wide = max(1, round(width * SIDE / height))
    image = Image.fromarray(pixels).resize((wide, SIDE), Image.Resampling.LANCZOS)
    left = max(0, (wide - WIDEST) // 2)
    return np.asarray(image)[:, left : left + WIDEST]


def _label(item: StoredItem) -> str:
    facts = item.layout.provenance
    return " · ".join(str(fact) for fact in (facts.method, facts.source, facts.prompt) if fact)


def _sheet(rows: Sequence[tuple[np.ndarray, str]]) -> np.ndarray:
    """Strips one below the other, each with its label."""
    gap, line = 14, 20
    width = max((strip.shape[1] for strip, _ in rows), default=400) + 2 * gap
    page = Image.new("RGB", (width, max(1, len(rows)) * (SIDE + line + gap) + gap), (250, 249, 246))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for row, (strip, label) in enumerate(rows):
        y = gap + row * (SIDE + line + gap)
        page.paste(Image.fromarray(strip), (gap, y))
        plain = "".join(c if c.isprintable() else "?" for c in label)
        while plain and font.getlength(plain) > width - 2 * gap:
            plain = plain[:-1]
        pen.text((gap, y + SIDE + 3), plain, fill=(70, 66, 60), font=font)
    return np.array(page)


def _card(item: StoredItem, split: str, strip: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(strip).save(out, "JPEG", quality=82)
    source = f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
    facts = item.layout.provenance
    size = f"{item.layout.size[0]} x {item.layout.size[1]}" if item.layout.size else ""
    words = [facts.source, facts.prompt, f"{len(item.layout.frames)} frames", size, facts.license, facts.origin]
    said = " · ".join(html.escape(word) for word in words if word)
    name = html.escape(facts.id)
    method = html.escape(facts.method or "unknown")
    return (
        f'<figure data-method="{method}"><img src="{source}" width="{strip.shape[1]}" height="{SIDE}" alt="{said}">'
        f"<figcaption><b>{method}</b> {said} <small>{split}/{name}</small></figcaption></figure>"
    )


def _page(title: str, about: Mapping[str, Any], cards: Sequence[str], total: int) -> str:
    name = html.escape(title)
    counts = about["counts"]
    said = f"{counts.get('sequences', total)} sequences of {about['pictures']} pictures"
    if len(cards) < total:
        said += f"; {len(cards)} of them are shown"
    tables = "".join(_table(key, about[key]) for key in ("method", "size", "frames", "license", "origin"))
    options = "".join(f"<option>{html.escape(method)}</option>" for method in about["method"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="generator" content="paintproc">
<title>{name}: a dataset of painting processes</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #2b2926; background: #faf9f6 }}
h1 {{ font-size: 1.4rem; margin: 0 }}
.tables {{ display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0 }}
table {{ border-collapse: collapse }}
caption {{ text-align: left; font-weight: 600 }}
td {{ padding: 0 .8rem 0 0; max-width: 22rem; overflow-wrap: anywhere }}
td:last-child {{ text-align: right; font-variant-numeric: tabular-nums }}
.find {{ position: sticky; top: 0; padding: .6rem 0; background: #faf9f6; z-index: 1 }}
.find > * {{ font: inherit; padding: .3rem .5rem }}
figure {{ margin: 0 0 1.2rem; content-visibility: auto; contain-intrinsic-size: auto 150px }}
figure[hidden] {{ display: none }}
img {{ max-width: 100%; height: auto; display: block }}
figcaption {{ overflow-wrap: anywhere }}
small {{ color: #6d6860 }}
</style></head><body>
<h1>{name}</h1>
<p>{said}. Each strip runs from the empty canvas to the last one; after the line stands the picture. Synthetic processes
are no recordings.</p>
<div class="tables">{tables}</div>
<div class="find"><input id="words" type="search" placeholder="words to look for" aria-label="words to look for">
<select id="method" aria-label="method"><option value="">all methods</option>{options}</select>
<output id="count">{len(cards)} shown</output></div>
<main>{"".join(cards)}</main>
<script>
const words = document.getElementById("words"), method = document.getElementById("method");
const figures = [...document.querySelectorAll("figure")];
const texts = figures.map(figure => figure.textContent.toLowerCase());
function choose() {{
  const wanted = words.value.toLowerCase().split(" ").filter(Boolean);
  let shown = 0;
  figures.forEach((figure, k) => {{
    const fits = wanted.every(word => texts[k].includes(word));
    figure.hidden = !fits || (method.value && figure.dataset.method !== method.value);
    shown += !figure.hidden;
  }});
  document.getElementById("count").textContent = shown + " shown";
}}
words.addEventListener("input", choose);
method.addEventListener("input", choose);
</script></body></html>
"""


def _table(title: str, counts: Mapping[str, int], most: int = 8) -> str:
    rows = [f"<tr><td>{html.escape(key)}</td><td>{count}</td></tr>" for key, count in list(counts.items())[:most]]
    rest = sum(list(counts.values())[most:])
    rows += [f"<tr><td>others</td><td>{rest}</td></tr>"] if rest else []
    return f"<table><caption>{title}</caption>{''.join(rows)}</table>"
