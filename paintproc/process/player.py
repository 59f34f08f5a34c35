"""The player: one HTML page that shows a sequence frame by frame, without a network."""

import base64
import html
import json
from collections.abc import Sequence
from itertools import groupby
from string import Template

import cv2
import numpy as np

from paintproc.sequence import PaintingSequence
from paintproc.version import __version__

JPEG_QUALITY = 88
COLORS = 6  # --c0 to --c5 in the page; further stages take them in turn


def player_page(sequence: PaintingSequence, title: str) -> str:
    """A self-contained HTML page that plays `sequence`; to be written as UTF-8.

    The frames are in it as data URIs, in JPEG or PNG. `#frame=5` in the address opens frame 5.
    """
    height, width = sequence.frames[0].shape[:2]
    count = len(sequence)
    status = [
        f"{stage} · {second / 60:.0f} min · frame {k} of {count - 1}"
        for k, (stage, second) in enumerate(zip(sequence.stages, sequence.seconds, strict=True))
    ]
    data = json.dumps(list(zip(sequence.captions, status, strict=True)))
    return _PAGE.substitute(
        title=html.escape(title),
        width=width,
        height=height,
        count=count,
        last=count - 1,
        disabled="disabled" if count == 1 else "",
        images="\n".join(_image(sequence, k) for k in range(count)),
        segments="\n".join(_segments(sequence.stages)),
        caption=html.escape(sequence.captions[0]),
        status=html.escape(status[0]),
        facts=html.escape(_facts(sequence)),
        data=data.replace("<", "\\u003c"),  # so neither an end tag nor a comment begins in the script
    )


def _data_uri(frame: np.ndarray) -> str:
    """A frame, uint8 sRGB [H, W, 3], as JPEG, or as PNG where that is smaller."""
    pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    png = cv2.imencode(".png", pixels)[1].tobytes()
    kind, content = ("png", png) if len(png) < len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _image(sequence: PaintingSequence, k: int) -> str:
    alt = html.escape(f"frame {k}, {sequence.stages[k]}: {sequence.captions[k]}")
    shown = " shown" if k == 0 else ""
    return f'<img class="frame{shown}" alt="{alt}" src="{_data_uri(sequence.frames[k])}">'


def _segments(stages: Sequence[str]) -> list[str]:
    """One button a run of equal stages, as wide as the run is long, in the stage's color."""
    names = list(dict.fromkeys(stages))
    buttons = []
    first = 0
    for stage, run in groupby(stages):
        last = first + len(list(run)) - 1
        span = f"frame {first}" if first == last else f"frames {first} to {last}"
        label = html.escape(f"{stage}, {span}")
        style = f"flex: {last - first + 1} 1 0; background: var(--c{names.index(stage) % COLORS})"
        buttons.append(
            f'<button type="button" data-first="{first}" data-last="{last}" style="{style}" title="{label}"'
            f' aria-label="{label}"><span>{html.escape(stage)}</span></button>'
        )
        first = last + 1
    return buttons


def _facts(sequence: PaintingSequence) -> str:
    from paintproc.process.generate import PROVENANCE

    facts = [f"{name} {sequence.info[name]}" for name in ("method", "seed") if name in sequence.info]
    return " · ".join([PROVENANCE, f"paintproc {__version__}", *facts])


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --paper: #f5efe3; --ink: #352b22; --quiet: #6b5d4e; --line: #cdbfa9; --mark: #9a4a24;
  --c0: #e3cfa4; --c1: #e2b48d; --c2: #c3c79d; --c3: #aec6c4; --c4: #d5b5c0; --c5: #c0b9d6; }
@media (prefers-color-scheme: dark) { :root { --paper: #211c18; --ink: #ebe1d2; --quiet: #b5a693; --line: #54483c;
  --mark: #e39a6c; --c0: #b39d6f; --c1: #b4845c; --c2: #929768; --c3: #7a9795; --c4: #a68390; --c5: #8f88a8; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100dvh; padding: 1rem; gap: .75rem; display: flex; flex-direction: column;
  background: var(--paper); color: var(--ink); line-height: 1.4; font-family: Georgia, "Times New Roman", serif; }
h1, .text, footer { margin: 0; text-align: center; overflow-wrap: anywhere; }
h1 { font-size: 1.1rem; font-weight: normal; }
h1, .panel, footer { flex: none; }
.easel { flex: 1 1 0; min-height: 10rem; max-height: min(2px * $height, (100vw - 2rem) * $height / $width);
  container-type: size; display: grid; place-items: center; }
.canvas { display: grid; width: min(100cqw, 2px * $width, 100cqh * $width / $height); aspect-ratio: $width / $height;
  box-shadow: 0 1px 10px rgb(40 25 10 / .35); }
.frame { grid-area: 1 / 1; width: 100%; height: 100%; visibility: hidden; opacity: 0; z-index: 0; }
.frame.shown, .frame.below { visibility: visible; opacity: 1; }
.frame.shown { z-index: 1; }
.panel { width: 100%; max-width: 46rem; margin: 0 auto; }
#caption { font-size: 1.2rem; min-height: 1.4em; }
#caption::first-letter { text-transform: uppercase; }
#status, footer { color: var(--quiet); font-size: .9rem; font-variant-numeric: tabular-nums; }
.controls { display: flex; gap: 1rem; align-items: center; margin-top: .75rem; }
.track { flex: 1; min-width: 0; }
.stages { display: flex; }
button, #slider { font: inherit; cursor: pointer; }
#play { display: flex; gap: .5em; align-items: center; justify-content: center; width: 6.2rem; padding: .5rem;
  color: var(--ink); background: none; border: 1px solid var(--line); border-radius: .4rem; }
#play:hover { border-color: var(--mark); }
#play i { width: .8em; height: .8em; background: var(--mark); clip-path: polygon(0 0, 100% 50%, 0 100%); }
#play.playing i { clip-path: polygon(0 0, 35% 0, 35% 100%, 65% 100%, 65% 0, 100% 0, 100% 100%, 0 100%); }
/* A label that does not fit wraps out of sight as a whole. */
.stages button { display: flex; flex-wrap: wrap; justify-content: center; height: 1.7rem; min-width: 0; padding: 0;
  overflow: hidden; border: 0; border-bottom: 3px solid transparent; color: #2c231b; font-size: .8rem;
  line-height: calc(1.7rem - 3px); white-space: nowrap; }
.stages button::before { content: ""; height: 100%; }
.stages button + button { border-left: 1px solid var(--paper); }
.stages button[aria-current="true"] { border-bottom-color: var(--mark); }
#slider { display: block; appearance: none; height: 1.5rem; background: none;
  width: calc(100% - 100% / $count + 1rem); margin: .2rem 0 0 calc(50% / $count - .5rem); }
#slider::-webkit-slider-runnable-track { height: 3px; background: var(--line); border-radius: 2px; }
#slider::-moz-range-track { height: 3px; background: var(--line); border-radius: 2px; }
#slider::-webkit-slider-thumb { appearance: none; margin-top: calc(1.5px - .5rem); width: 1rem; height: 1rem;
  background: var(--mark); border: 0; border-radius: 50%; }
#slider::-moz-range-thumb { width: 1rem; height: 1rem; background: var(--mark); border: 0; border-radius: 50%; }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 1px; }
.stages button:focus-visible { outline-color: #2c231b; outline-offset: -3px; }
footer { margin-top: auto; }
@media (prefers-reduced-motion: no-preference) { .fading .frame.shown { transition: opacity .35s linear; } }
@media (max-width: 36rem) { .controls { flex-direction: column-reverse; align-items: stretch; gap: .5rem; }
  #play { align-self: center; } }
</style>
<noscript><style>
.easel { flex: none; max-height: none; container-type: normal; } .controls, .text { display: none; }
.canvas { display: block; width: auto; aspect-ratio: auto; box-shadow: none; }
.frame { display: block; width: auto; max-width: 100%; height: auto; margin: 1rem auto; }
.canvas .frame { opacity: 1; visibility: visible; }
</style></noscript>
</head>
<body>
<h1>$title</h1>
<main class="easel"><div class="canvas" id="canvas">
$images
</div></main>
<section class="panel" aria-label="player">
<p class="text" id="caption" aria-live="polite">$caption</p>
<p class="text" id="status">$status</p>
<div class="controls">
<button id="play" type="button" aria-label="Play" $disabled><i></i><span id="play-text">Play</span></button>
<div class="track">
<div class="stages" role="group" aria-label="stages">$segments</div>
<input id="slider" type="range" min="0" max="$last" value="0" step="1" aria-label="frame" aria-valuetext="$status"
 $disabled></div></div>
</section>
<footer>$facts</footer>
<script>
"use strict";
(() => {
  const frames = $data;
  const last = frames.length - 1;
  const find = (id) => document.getElementById(id);
  const images = [...document.querySelectorAll(".frame")];
  const segments = [...document.querySelectorAll(".stages button")];
  const slider = find("slider"), caption = find("caption"), play = find("play");
  let current = 0, timer = 0;

  function show(wanted, fade = false, keep = true) {
    const next = Math.min(Math.max(wanted, 0), last);
    const [words, status] = frames[next];
    find("canvas").classList.toggle("fading", fade);
    images.forEach((image, k) => {
      image.classList.toggle("below", fade && k === current && k !== next);
      image.classList.toggle("shown", k === next);
    });
    segments.forEach((segment) => {
      const here = Number(segment.dataset.first) <= next && next <= Number(segment.dataset.last);
      segment.setAttribute("aria-current", String(here));
    });
    if (caption.textContent !== words) caption.textContent = words;
    find("status").textContent = status;
    slider.value = String(next);
    slider.setAttribute("aria-valuetext", status);
    current = next;
    if (!keep) return;
    try { history.replaceState(null, "", "#frame=" + next); } catch { /* some browsers refuse this for files */ }
  }

  function setPlaying(on) {
    const label = on ? "Pause" : "Play";
    clearInterval(timer);
    timer = on ? setInterval(() => { show(current + 1, true); if (current === last) setPlaying(false); }, 500) : 0;
    play.classList.toggle("playing", on);
    play.setAttribute("aria-label", label);
    find("play-text").textContent = label;
  }

  function toggle() {
    if (!timer && current === last) show(0);
    setPlaying(!timer && last > 0);
  }

  function go(index) {
    setPlaying(false);
    show(index);
  }

  function readHash() {
    const match = /^#frame=(\\d+)$$/.exec(location.hash);
    setPlaying(false);
    show(match ? Number(match[1]) : 0, false, false);
  }

  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => go(Number(slider.value)));
  segments.forEach((segment) => segment.addEventListener("click", (event) => {
    go(Number(segment.dataset.first));
    if (event.detail) slider.focus(); // clicked by pointer: the space bar plays again
  }));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: last };
    const onButton = document.activeElement?.closest("button");
    if (event.key === " " ? onButton : !Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    if (event.key !== " ") go(moves[event.key]);
    else if (!event.repeat) toggle();
  });
  window.addEventListener("hashchange", readHash);
  readHash();
})();
</script>
</body>
</html>
""")
