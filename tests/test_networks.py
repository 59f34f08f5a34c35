"""Networks that look at a picture: which are chosen, what their masks do to the regions, what is kept."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paintproc.config.generate import GenerateConfig
from paintproc.errors import DeviceError, InputError, MissingError, UsageError
from paintproc.scene import networks, segment
from paintproc.scene.find import find_scene
from paintproc.scene.inpaint import LARGEST_HOLE, fill_with_migan
from paintproc.scene.layers import fill
from paintproc.scene.networks import SceneNetworks, choose_networks, find_device, observe
from paintproc.scene.regions import MOST_WITH_MASKS, pieces, superpixels
from paintproc.scene.values import Observation
from paintproc.strokes.ops.compiling import kernel_folder
from paintproc.weights.manifest import named

CHECKS = os.environ.get("PAINTPROC_CHECKS")
"""A folder with lpips/ex_ref.png, ex_p0.png and ex_p1.png, the example pictures of the LPIPS repository."""

needs_models = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install 'paintproc[models]'"
)


def figure() -> tuple[np.ndarray, np.ndarray]:
    """A figure with a light head and a dark coat before a wall of mixed colors, and the figure's mask."""
    random = np.random.default_rng(0)
    picture = np.full((168, 224, 3), 130.0)
    picture[:, :112] += 30
    picture[105:] -= 50
    mask = np.zeros((168, 224), bool)
    mask[35:158, 88:140] = True
    picture[35:79, 88:140] = (230, 200, 180)
    picture[79:158, 88:140] = (40, 30, 60)
    return np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8), mask


def observation(*masks: np.ndarray, depth: np.ndarray | None = None, trust: float = 0.0) -> Observation:
    shape = (len(masks), *figure()[1].shape)
    return Observation(np.array(masks, bool).reshape(shape), np.ones(len(masks)), depth, trust, "test")


def regions_under(scene, mask):
    return set(scene.regions[mask].tolist())


class TestMasks:
    def test_what_one_mask_holds_is_one_region(self):
        picture, mask = figure()
        assert len(regions_under(find_scene(picture), _inner(mask))) > 1
        scene = find_scene(picture, observation(mask))
        assert len(regions_under(scene, _inner(mask))) == 1
        assert scene.method == "test"

    def test_a_mask_keeps_what_looks_alike_apart(self):
        flat = np.clip(np.random.default_rng(1).normal(120, 3, (168, 224, 3)), 0, 255).astype(np.uint8)
        mask = np.zeros((168, 224), bool)
        mask[52:122, 70:157] = True
        scene = find_scene(flat, observation(mask))
        assert regions_under(scene, _inner(mask)).isdisjoint(regions_under(scene, ~_outer(mask)))

    def test_parts_in_a_thing_stay_within_it(self):
        picture, mask = figure()
        head, coat = mask.copy(), mask.copy()
        head[79:], coat[:79] = False, False
        scene = find_scene(picture, observation(mask, head, coat))
        assert len(regions_under(scene, _inner(mask))) == 1
        assert len(set(scene.parts[_inner(mask)].tolist())) > 1

    def test_no_masks_is_the_built_in_scene(self):
        picture, _ = figure()
        scene, plain = find_scene(picture, observation()), find_scene(picture)
        assert np.array_equal(scene.parts, plain.parts)
        assert np.array_equal(scene.regions, plain.regions)

    @pytest.mark.parametrize("seed", range(5))
    def test_any_masks_give_a_scene(self, seed):
        random = np.random.default_rng(seed)
        picture = random.integers(0, 256, (70, 90, 3)).astype(np.uint8)
        masks = random.random((12, 70, 90)) < random.random((12, 1, 1))
        scene = find_scene(picture, Observation(masks, random.random(12), None, 0.0, "test"))
        assert 1 <= len(scene) <= MOST_WITH_MASKS

    def test_pieces_lie_within_one_mask_and_one_superpixel(self):
        y, x = np.mgrid[:168, :224]
        mask = (x - 100) ** 2 + (y - 80) ** 2 < 50**2
        labels = superpixels(np.random.default_rng(0).normal(60, 2, (168, 224, 3)).astype(np.float32))
        cut = pieces(labels, mask[None])
        assert cut.max() > labels.max()

        def crossing(labels):
            return sum((cut_by := mask[labels == k].mean()) > 0.2 and cut_by < 0.8 for k in range(labels.max() + 1))

        assert crossing(cut) < 0.1 * crossing(labels)

    def test_masks_of_noise_take_no_time(self):
        random = np.random.default_rng(0)
        masks = random.random((12, 200, 220)) < 0.5
        begun = time.perf_counter()
        find_scene(
            random.integers(0, 256, (200, 220, 3)).astype(np.uint8), Observation(masks, np.ones(12), None, 0.0, "test")
        )
        assert time.perf_counter() - begun < 5

    def test_what_runs_from_side_to_side_is_no_thing(self):
        """A man on a road that is a mask too: the road is painted first, though it lies lower."""
        y, x = np.mgrid[:168, :224]
        road, man = y > 120, (np.abs(x - 110) < 25) & (y > 40) & (y < 140)
        picture = np.where(man[..., None], (60, 40, 90), np.where(road[..., None], (170, 150, 110), (190, 210, 230)))
        noise = np.random.default_rng(2).normal(0, 4, picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
        scene = find_scene(picture, observation(road & ~man, man))
        (near,) = regions_under(scene, _inner(man))
        assert max(regions_under(scene, _inner(road & ~man))) < near

    def test_masks_of_nothing_and_of_everything_say_nothing(self):
        picture, mask = figure()
        empty, full = np.zeros_like(mask), np.ones_like(mask)
        scene, more = find_scene(picture, observation(mask)), find_scene(picture, observation(mask, empty, full))
        assert np.array_equal(scene.regions, more.regions)

    def test_trusted_depth_decides_the_order(self):
        picture, mask = figure()
        near = np.where(mask, 1, 0).astype(np.float32)
        for depth, place in ((near, "last"), (1 - near, "first")):
            scene = find_scene(picture, observation(mask, depth=depth, trust=1.0))
            (own,) = regions_under(scene, _inner(mask))
            assert own == (len(scene) - 1 if place == "last" else 0)


def _inner(mask: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)


def _outer(mask: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)


class TestChoice:
    def at_hand(self, monkeypatch, *names):
        monkeypatch.setattr(networks, "state", lambda weight, folder: "here" if weight.name in names else "missing")

    def test_without_weights_auto_is_built_in(self, tmp_path):
        assert str(choose_networks("auto", folder=tmp_path)) == "builtin"

    def test_without_packages_auto_is_built_in(self, tmp_path, monkeypatch):
        self.at_hand(monkeypatch, "mobile-sam")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert choose_networks("auto", folder=tmp_path) == SceneNetworks()
        with pytest.raises(MissingError, match=r"torch, which is not installed.*pip install 'paintproc\[models\]'"):
            choose_networks("networks", folder=tmp_path)

    @needs_models
    @pytest.mark.parametrize(
        ("scene", "weights", "chosen"),
        [
            ("builtin", ["mobile-sam"], "builtin"),
            ("auto", ["mobile-sam"], "mobile-sam"),
            ("auto", ["sam2-tiny", "sam-vit-h", "mobile-sam"], "mobile-sam"),
            ("auto", ["mobile-sam", "fastdepth", "migan"], "mobile-sam"),
            ("auto", ["fastdepth", "migan"], "builtin"),
            ("auto", ["depth-anything-v2-small", "sam-vit-h"], "builtin"),
            ("auto", ["depth-anything-v2-small", "sam-vit-h", "sam2-tiny"], "sam2-tiny"),
            ("networks", ["depth-anything-v2-small", "sam-vit-h"], "sam-vit-h + depth-anything-v2-small"),
            ("networks", ["mobile-sam", "fastdepth"], "mobile-sam + fastdepth"),
            ("networks", ["mobile-sam", "migan"], "mobile-sam + migan"),
            ("networks", ["sam2-tiny", "fastdepth", "depth-anything-v2-small"], "sam2-tiny + depth-anything-v2-small"),
        ],
    )
    def test_what_is_at_hand_is_taken(self, monkeypatch, tmp_path, scene, weights, chosen):
        self.at_hand(monkeypatch, *weights)
        assert str(choose_networks(scene, "cpu", tmp_path)) == chosen

    @needs_models
    def test_networks_without_weights_say_what_to_do(self, tmp_path):
        with pytest.raises(MissingError) as caught:
            choose_networks("networks", folder=tmp_path)
        for words in ("mobile-sam", "41 MB", "paintproc weights get mobile-sam", str(tmp_path), "--scene builtin"):
            assert words in str(caught.value)

    @needs_models
    def test_a_device_that_is_not_there(self):
        import torch

        assert find_device("cpu") == "cpu"
        with pytest.raises(DeviceError):
            find_device(f"cuda:{torch.cuda.device_count()}")

    @pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:1", "cuda:\uff10", ""])
    def test_a_device_of_no_kind(self, device):
        with pytest.raises(UsageError, match="--device"):
            GenerateConfig(device=device)

    @needs_models
    @pytest.mark.parametrize(
        ("weights", "chosen"), [(["sam2-tiny"], "sam2-tiny"), (["mobile-sam"], "mobile-sam on cuda")]
    )
    def test_graphs_run_on_the_cpu(self, monkeypatch, tmp_path, weights, chosen):
        self.at_hand(monkeypatch, *weights)
        monkeypatch.setattr(networks, "find_device", lambda device: "cuda")
        assert str(choose_networks("auto", "auto", tmp_path)) == chosen

    @needs_models
    @pytest.mark.parametrize("scene", ["auto", "networks"])
    def test_damaged_weights_are_not_passed_over(self, tmp_path, scene):
        (tmp_path / "mobile-sam").mkdir()
        (tmp_path / "mobile-sam" / "mobile_sam.safetensors").write_bytes(b"half a file")
        with pytest.raises(InputError, match=r"damaged.*weights get mobile-sam.*--scene builtin works without them"):
            choose_networks(scene, "cpu", tmp_path)
        assert choose_networks("builtin", "cpu", tmp_path) == SceneNetworks()

    @needs_models
    def test_a_torch_that_cannot_be_imported(self, monkeypatch, tmp_path):
        self.at_hand(monkeypatch, "mobile-sam")
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so is not there')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        with pytest.raises(MissingError, match="torch is installed and cannot be imported"):
            choose_networks("auto", "auto", tmp_path)


class TestKept:
    @pytest.fixture
    def counted(self, monkeypatch, tmp_path):
        """Looks with a stand-in for the segmenter; how often it was asked."""
        asked = []

        def stand_in(picture, name, files, device):
            asked.append(name)
            return figure()[1][None], np.array([0.9])

        monkeypatch.setattr(segment, "segment", stand_in)
        monkeypatch.setattr(networks, "_checked_files", lambda name, folder: [])
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return asked

    def test_a_picture_is_looked_at_once(self, counted):
        picture, _ = figure()
        first, again = observe(picture, SceneNetworks("mobile-sam")), observe(picture, SceneNetworks("mobile-sam"))
        assert counted == ["mobile-sam"]
        assert np.array_equal(first.masks, again.masks)
        assert np.array_equal(first.quality, again.quality)
        assert (again.depth, again.trust, again.method) == (None, 0.0, "mobile-sam")
        other = picture.copy()
        other[0, 0, 0] ^= 1
        observe(other, SceneNetworks("mobile-sam"))
        observe(picture, SceneNetworks("sam2-tiny"))
        assert counted == ["mobile-sam", "mobile-sam", "sam2-tiny"]

    def test_what_was_kept_and_is_damaged_is_looked_at_again(self, counted, tmp_path):
        picture, _ = figure()
        observe(picture, SceneNetworks("mobile-sam"))
        (kept,) = tmp_path.rglob("*.npz")
        strange = io.BytesIO()
        np.savez(strange, shape=np.array([1, 9, 9]), masks=np.zeros(3, np.uint8), quality=np.zeros(2))
        for damage in (b"", b"PK\x03\x04", kept.read_bytes()[:-20], strange.getvalue()):
            kept.write_bytes(damage)
            observe(picture, SceneNetworks("mobile-sam"))
        assert len(counted) == 5
        observe(picture, SceneNetworks("mobile-sam"))
        assert len(counted) == 5

    def test_weights_are_read_before_a_network_is_asked(self, monkeypatch, tmp_path):
        """A file of the right size with other bytes never reaches a network."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(segment, "segment", lambda *_: pytest.fail("a network was asked"))
        file = named("fastdepth").files[0]
        (tmp_path / "fastdepth").mkdir()
        (tmp_path / "fastdepth" / file.name).write_bytes(bytes(file.size))
        with pytest.raises(InputError, match="not as published"):
            observe(figure()[0], SceneNetworks(depth="fastdepth", folder=tmp_path))
        assert not list(tmp_path.rglob("*.npz"))

    @pytest.mark.parametrize(
        "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("can't allocate memory: you")]
    )
    def test_too_little_memory_is_said_so(self, counted, monkeypatch, error):
        def fail(*_):
            raise error

        monkeypatch.setattr(segment, "segment", fail)
        with pytest.raises(DeviceError, match="Out of memory while networks looked"):
            observe(figure()[0], SceneNetworks("mobile-sam"))

    def test_other_errors_are_no_lack_of_memory(self, counted, monkeypatch):
        def fail(*_):
            raise RuntimeError("an illegal memory access was encountered")

        monkeypatch.setattr(segment, "segment", fail)
        with pytest.raises(RuntimeError, match="illegal"):
            observe(figure()[0], SceneNetworks("mobile-sam"))

    def test_a_cache_that_cannot_be_written_is_no_obstacle(self, counted, tmp_path, monkeypatch):
        (tmp_path / "paintproc").write_text("a file in the way")
        observe(figure()[0], SceneNetworks("mobile-sam"))
        observe(figure()[0], SceneNetworks("mobile-sam"))
        assert len(counted) == 2

    def test_nothing_chosen_is_nothing_seen(self):
        assert observe(figure()[0], SceneNetworks()) is None


class TestGenerate:
    @pytest.fixture
    def stand_in(self, monkeypatch, tmp_path):
        """A segmenter that sees the figure, a filler that paints behind it in red."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(networks, "_checked_files", lambda name, folder: [Path(name)])
        monkeypatch.setattr(segment, "segment", lambda *_: (figure()[1][None], np.array([0.9])))
        return SceneNetworks("mobile-sam", behind="migan")

    def test_what_saw_the_scene_is_recorded_and_fills_behind(self, stand_in, monkeypatch):
        from paintproc.process.generate import generate
        from paintproc.scene import inpaint

        filled = []
        monkeypatch.setattr(inpaint, "fill_with_migan", lambda picture, known, file: filled.append(file) or picture)
        sequence = generate(figure()[0], GenerateConfig(strokes=80, num_frames=2), networks=stand_in)
        assert sequence.info["scene"] == "mobile-sam + migan"
        assert set(filled) == {Path("migan")}
        assert len(regions_under(sequence.scene, _inner(figure()[1]))) == 1
        plain = generate(figure()[0], GenerateConfig(strokes=80, num_frames=2), networks=SceneNetworks())
        assert plain.info["scene"] == "builtin"
        assert not np.array_equal(plain.strokes.points, sequence.strokes.points)

    def test_device_and_the_word_for_the_scene_do_not_make_another_output(self):
        from paintproc.media import picture_from_pixels
        from paintproc.process.generate import identity

        picture = picture_from_pixels(figure()[0], None)
        one, same = GenerateConfig(), GenerateConfig(scene="networks", device="cpu")
        assert identity(picture, None, one, SceneNetworks()) == identity(picture, None, same, SceneNetworks())
        assert identity(picture, None, one, SceneNetworks()) != identity(
            picture, None, one, SceneNetworks("mobile-sam")
        )


class TestCommand:
    @needs_models
    def test_missing_weights_end_a_batch_before_any_work(self, paintproc, small_file, tmp_path):
        for more in ([], ["--dry-run"]):
            done = paintproc("generate", small_file, small_file.name, "--scene", "networks", *more)
            assert (done.returncode, done.stdout) == (4, "")
            assert done.stderr.count("weights get") == 1
            assert sorted(path.name for path in tmp_path.iterdir()) == ["small.png"]

    def test_without_a_home_it_paints(self, paintproc, small_file, tmp_path):
        hidden = "import pwd, sys\ndef no(_): raise KeyError\npwd.getpwuid = no\n"
        hidden += "import os; os.environ.pop('HOME', None); os.environ.pop('PAINTPROC_WEIGHTS', None)\n"
        kernels = kernel_folder().parent
        hidden += f"os.environ['TMPDIR'] = {str(tmp_path)!r}\nos.environ['NUMBA_CACHE_DIR'] = {str(kernels)!r}\n"
        for words in (["weights", "path"], ["generate", str(small_file), "--strokes", "40", "--num-frames", "2"]):
            code = hidden + f"sys.argv = ['paintproc', *{words!r}]\nfrom paintproc.cli import main; main()"
            done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    @needs_models
    def test_missing_weights_end_it_at_once(self, paintproc, small_file, tmp_path):
        begun = time.perf_counter()
        done = paintproc("generate", "--image", small_file, "--scene", "networks", "--weights-dir", tmp_path / "none")
        assert time.perf_counter() - begun < 15
        assert (done.returncode, done.stdout) == (4, "")
        assert "paintproc weights get mobile-sam" in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["small.png"]

    def test_the_record_says_what_saw_the_scene(self, paintproc, small_file, tmp_path):
        done = paintproc("generate", "--image", small_file, "--strokes", 60, "--num-frames", 2, "--format", "frames")
        assert done.returncode == 0
        assert json.loads((tmp_path / "small-process" / "sequence.json").read_text())["scene"] == "builtin"


@needs_models
class TestWeights:
    def test_files_of_another_network_are_refused(self, tmp_path):
        from safetensors.numpy import save_file

        path = tmp_path / "model.safetensors"
        save_file({"image_encoder.patch_embed.seq.0.c.weight": np.zeros((3, 3), np.float32)}, path)
        for name in ("mobile-sam", "sam-vit-b"):
            with pytest.raises(InputError, match=f"does not hold {name}"):
                segment.load_segmenter(name, (path,), "cpu")

    def test_a_damaged_graph_is_refused(self, tmp_path):
        from paintproc.scene.running import open_graph

        for content in (b"", b"no graph", bytes(range(256)) * 50):
            (tmp_path / "a.onnx").write_bytes(content)
            with pytest.raises(InputError, match="damaged, or no ONNX graph"):
                open_graph(tmp_path / "a.onnx")

    def test_no_graph_tells_its_makers(self, tmp_path):
        """onnxruntime from 1.29 on sends what it runs and keeps an identifier of the machine, unless told not to."""

        def left_by(line: str) -> set[str]:
            home = tmp_path / str(len(list(tmp_path.iterdir())))
            home.mkdir()
            places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PATH": os.environ["PATH"]}
            code = f"{line}\ntry: run('/dev/null')\nexcept Exception: pass"
            subprocess.run([sys.executable, "-c", code], env=places, check=True, capture_output=True)
            return {path.name for path in home.rglob("*")}

        assert not left_by("from paintproc.scene.running import open_graph as run")
        if not left_by("from onnxruntime import InferenceSession as run"):
            pytest.skip("this onnxruntime keeps no identifier, so nothing is shown")

    def test_depth_anything_has_the_size_that_is_published(self):
        from paintproc.scene.depth import depth_anything

        model = depth_anything("depth-anything-v2-small")
        size = sum(value.numel() * 4 for value in model.state_dict().values())
        assert 0 < named("depth-anything-v2-small").size - size < 100_000

    def test_depth_anything_looks_at_any_shape(self, monkeypatch):
        from paintproc.scene import depth

        model = depth.depth_anything("depth-anything-v2-small").eval()
        monkeypatch.setattr(depth, "_load_depth_anything", lambda *_: model)
        found = depth.find_depth(figure()[0], "depth-anything-v2-small", [None], "cpu")
        assert found.shape == (518, 686)
        assert (found.min(), found.max()) == (0, 1)

    def test_mobile_sam_takes_every_tensor(self, weights):
        from safetensors import safe_open

        from paintproc.weights.store import find_weights

        (path,) = find_weights("mobile-sam", weights("mobile-sam"))
        with safe_open(path, "np") as file:
            names = {ours for name in file.keys() if (ours := segment.mobile_sam_names(name))}  # noqa: SIM118
        assert names == set(segment.mobile_sam().state_dict())

    @pytest.mark.parametrize("name", ["mobile-sam", "sam2-tiny"])
    def test_a_disc_is_found(self, weights, name, monkeypatch):
        monkeypatch.setattr(segment, "POINTS", 20)
        from paintproc.weights.store import find_weights

        y, x = np.mgrid[:160, :200]
        disc = (x - 120) ** 2 + (y - 70) ** 2 < 40**2
        picture = np.where(disc[..., None], (200, 60, 40), (60, 110, 160)).astype(np.uint8)
        masks, quality = segment.segment(picture, name, find_weights(name, weights(name)), "cpu")
        overlap = [(mask & disc).sum() / (mask | disc).sum() for mask in masks]
        assert max(overlap) > 0.9
        assert quality[int(np.argmax(overlap))] > 0.7
        assert ((quality >= 0) & (quality <= 1)).all()

    def test_a_painted_man_is_one_region(self, weights, paintings, monkeypatch, tmp_path):
        monkeypatch.setattr(segment, "POINTS", 60)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        picture = np.array(Image.open(paintings / "famous" / "061.jpg"))
        scene = find_scene(picture, observe(picture, SceneNetworks("mobile-sam", folder=weights("mobile-sam"))))
        height, width = scene.regions.shape
        places = [(0.63, 0.27), (0.6, 0.4), (0.62, 0.65)]
        assert len({int(scene.regions[int(y * height), int(x * width)]) for x, y in places}) == 1

    def test_a_small_hole_is_filled_and_a_large_one_left_to_the_built_in_fill(self, weights, paintings):
        picture = np.array(Image.open(paintings / "famous" / "061.jpg").convert("RGB").resize((160, 134)))
        unit = picture.astype(np.float32) / 255
        file = weights("migan") / "migan" / "migan_pipeline_v2.onnx"
        known = np.ones(unit.shape[:2], np.float32)
        assert np.array_equal(fill_with_migan(unit, known, file), unit)
        known[40:60, 40:60] = 0
        filled = fill_with_migan(unit, known, file)
        assert np.array_equal(filled[known > 0], unit[known > 0])
        assert filled[known == 0].std() > 0
        assert not np.array_equal(filled, fill(unit, known))
        known[: int(134 * (LARGEST_HOLE + 0.1))] = 0
        assert np.array_equal(fill_with_migan(unit, known, file), fill(unit, known))

    def test_lpips_gives_the_published_distances(self, weights):
        """0.722 and 0.138: the README of the LPIPS repository, for its example pictures."""
        if not CHECKS:
            pytest.skip("PAINTPROC_CHECKS names no folder with lpips/ex_ref.png, ex_p0.png, ex_p1.png")
        import torch
        from safetensors.numpy import load_file

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lpips

            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
        tensors = load_file(weights("lpips-alex") / "lpips-alex" / "alexnet.safetensors")
        convolutions = [layer for layer in network.net.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert len(convolutions) == 5
        with torch.no_grad():
            for k, layer in enumerate(convolutions):
                layer.weight.copy_(torch.from_numpy(tensors[f"AlexNet_0.Conv_{k}.kernel"]).permute(3, 2, 0, 1))
                layer.bias.copy_(torch.from_numpy(tensors[f"AlexNet_0.Conv_{k}.bias"]))
            for k in range(5):
                head = torch.from_numpy(tensors[f"NetLinLayer_{k}.Conv_0.kernel"]).permute(3, 2, 0, 1)
                assert torch.equal(network.lins[k].model[-1].weight, head)
            pictures = [
                torch.from_numpy(np.array(Image.open(Path(CHECKS, "lpips", f"ex_{name}.png")))).permute(2, 0, 1)[None]
                for name in ("ref", "p0", "p1")
            ]
            first, *others = (picture / 127.5 - 1 for picture in pictures)
            assert [round(float(network(first, other)), 3) for other in others] == [0.722, 0.138]
