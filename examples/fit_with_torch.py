"""Paint a picture with strokes and a perceptual loss, in plain PyTorch: half a minute on two cores.

    python examples/fit_with_torch.py [FOLDER] [STEPS]

Writes picture.png and strokes.safetensors into FOLDER (by default, here). Where the weights are at hand (`paintproc
weights get lpips-alex`) the loss is LPIPS; without them it compares colors and edges at five sizes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

import paintproc
from paintproc.media import save_png
from paintproc.strokes.torch import rasterize
from paintproc.strokes.values import strokes_to_bytes
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, state, weights_folder


def edges_and_colors(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How far apart two pictures [1, 3, H, W] are, in their colors and their edges, at five sizes."""
    total = torch.zeros(())
    for _ in range(5):
        apart = first - second
        total = total + apart.abs().mean() + 2 * apart.diff(dim=2).abs().mean() + 2 * apart.diff(dim=3).abs().mean()
        first, second = avg_pool2d(first, 2), avg_pool2d(second, 2)
    return total


def perceptual_loss():
    """LPIPS with AlexNet (Zhang et al. 2018) and a little of the other, or the other alone."""
    if state(named("lpips-alex"), weights_folder()) != "here":
        return edges_and_colors
    import lpips
    from safetensors.torch import load_file

    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    weights = load_file(find_weights("lpips-alex")[0])
    for k, layer in enumerate(layer for layer in network.net.modules() if isinstance(layer, torch.nn.Conv2d)):
        layer.weight.copy_(weights[f"AlexNet_0.Conv_{k}.kernel"].permute(3, 2, 0, 1))
        layer.bias.copy_(weights[f"AlexNet_0.Conv_{k}.bias"])
    return lambda first, second: network(2 * first - 1, 2 * second - 1).sum() + 0.3 * edges_and_colors(first, second)


folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 150
loss_of = perceptual_loss()

# the target, and strokes on a toned ground: short, anywhere, in the color that is there
pixels = paintproc.load_picture(Path(__file__).with_name("wheat-field.jpg"), max_side=192).pixels
target = torch.from_numpy(pixels / 255).float()
height, width = target.shape[:2]
torch.manual_seed(0)
count, side = 800, max(height, width)
middle = torch.rand(count, 1, 2) * torch.tensor([width / side, height / side])
x, y = (middle[:, 0] * side).long().unbind(1)
strokes = {
    "points": middle + torch.tensor([[-0.02], [0.0], [0.02]]) * torch.randn(count, 1, 2),
    "radius": torch.linspace(0.04, 0.008, count)[:, None].repeat(1, 2),
    "color": target[y, x][:, None].repeat(1, 2, 1),
    "alpha": torch.full((count, 2), 0.8),
}
canvas = target.mean((0, 1)).expand(height, width, 3)

# everything is learned together; the steps shrink to nothing
rates = {"points": 0.002, "radius": 0.0005, "color": 0.02, "alpha": 0.02}
optimizer = torch.optim.Adam([{"params": [strokes[name].requires_grad_()], "lr": rate} for name, rate in rates.items()])
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
bounds = {"points": (-0.5, 1.5), "radius": (0.004, 0.2), "color": (0, 1), "alpha": (0.2, 1)}
for step in range(steps):
    optimizer.zero_grad()
    picture = rasterize(**strokes, canvas=canvas)
    loss = loss_of(picture.movedim(2, 0)[None], target.movedim(2, 0)[None])
    loss.backward()
    optimizer.step()
    schedule.step()
    with torch.no_grad():
        for name, (low, high) in bounds.items():
            strokes[name].clamp_(low, high)
    if step % 50 == 0 or step == steps - 1:
        print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr)

# strokes are strokes: the rest of paintproc takes them
arrays = {name: tensor.detach().numpy() for name, tensor in strokes.items()}
painted = paintproc.Strokes(**arrays, ground=canvas[0, 0].numpy(), aspect=width / height)
folder.mkdir(parents=True, exist_ok=True)
(folder / "strokes.safetensors").write_bytes(strokes_to_bytes(painted, {"made_by": "examples/fit_with_torch.py"}))
picture = paintproc.rasterize(painted, size=(2 * height, 2 * width))
save_png(folder / "picture.png", np.rint(255 * picture).astype(np.uint8), {})
print(folder / "picture.png")
