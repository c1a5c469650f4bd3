"""One brain onto another by plain gradient descent: an affine map, then the flow of a velocity field.

TORCH_STN_DATA=... python examples/register_brain.py 3d    # a subject to MNI152, 2 mm volumes; 2d: one slice to another
Prints the normalised cross-correlation, the number of folds and the time; writes register_brain_3d.png (or 2d).
"""

import json
import os
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from torch_stn import Affine, VelocityField, warp

PAIRS = {"3d": ("brain3d/brain3d_2mm.npz", "subject", "mni152"), "2d": ("brain2d/ants_slices.npz", "r16", "r64")}
pair = sys.argv[1] if len(sys.argv) > 1 else "3d"
file, *names = PAIRS.get(pair) or sys.exit(f"register_brain.py: wanted 3d or 2d, got {pair}")
if not os.path.isfile(path := os.path.join(os.environ.get("TORCH_STN_DATA", ""), file)):
    sys.exit(f"TORCH_STN_DATA: wanted a folder that holds {file}, got {os.environ.get('TORCH_STN_DATA')!r}")
moving, fixed = (torch.from_numpy(np.load(path)[name])[None, None].float() / 255 for name in names)
half = [F.interpolate(x, scale_factor=0.5, mode="area") for x in (moving, fixed)]
size, dims, started = fixed.shape[2:], fixed.dim() - 2, time.time()
pool, up = (F.avg_pool3d, -1) if dims == 3 else (F.avg_pool2d, 1)


def correlation(a, b, mean=torch.mean):
    """Over the picture; with a local mean, the mean square over windows."""
    covariance, va, vb = mean(a * b) - mean(a) * mean(b), mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    return covariance / (va * vb).sqrt() if mean is torch.mean else (covariance**2 / (va * vb).clamp(min=1e-4)).mean()


def descend(name, parameter, loss, steps, rate):
    """Adam."""
    optimizer = torch.optim.Adam([parameter], lr=rate, eps=1e-5)
    for _ in range(steps):
        optimizer.zero_grad()
        (value := loss()).backward()
        optimizer.step()
    print(f"{name}: {steps} steps, loss {value.item():.4f}", flush=True)


def loss(moving, fixed):
    """How unlike the windows are, and how rough the velocity is."""
    rough = sum(slope.square().mean() for slope in torch.gradient(v[0], dim=list(range(dims))))
    return 1000 * rough - correlation(warp(moving, linear.then(flow(v))), fixed, lambda x: pool(x, 7, stride=1))


affine = Affine(dims)
theta = affine.identity()[None].requires_grad_()
descend("affine", theta, lambda: -correlation(warp(half[0], affine(theta)), half[1]), 120, 0.01)
linear = affine(theta.detach())
flow = VelocityField([n // 4 for n in size], integration_size=[n // 2 for n in size], squarings=6)
v = flow.identity()[None].requires_grad_()
descend("flow, half resolution", v, lambda: loss(*half), 80, 0.01)
descend("flow", v, lambda: loss(moving, fixed), 15, 0.004)
with torch.no_grad():
    images = [moving, warp(moving, linear), warp(moving, linear.then(flow(v))), fixed]
    grid = linear.then(flow(v)).grid(size)[0]
    rows = torch.gradient(grid, spacing=[2 / n for n in size], dim=list(range(dims)))  # central differences
    jacobian = torch.linalg.det(torch.stack(rows[::-1], dim=-1))
found = dict(zip(("before", "affine", "after"), (correlation(x, fixed).item() for x in images), strict=False))
print(json.dumps({"ncc": found, "folds": int((jacobian <= 0).sum()), "seconds": round(time.time() - started)}))

titles = ("moving", "affine", "then flow", "fixed", "Jacobian, 0 to 2", "where a grid reads")
figure, axes = plt.subplots(2 * dims - 3, 6, figsize=(12, 2.2 * (2 * dims - 3)), squeeze=False, layout="compressed")
for view, row in enumerate(axes):  # of a volume, whose axes run right, forward and up: sagittal, coronal, axial
    cut = (lambda x, k=view: x.select(k, x.shape[k] // 2).transpose(0, 1)) if dims == 3 else (lambda x: x)
    pictures = [*(image[0, 0] for image in images), jacobian, moving[0, 0]]
    for k, (axis, picture, title) in enumerate(zip(row, pictures, titles, strict=True)):
        axis.imshow(cut(picture), "coolwarm" if k == 4 else "gray", vmin=0, vmax=1 + (k == 4))
        axis.set(title="" if view else title, xticks=[], yticks=[], ylim=axis.get_ylim()[::up])
    lines = cut((grid + 1) * torch.tensor(size[::-1]) / 2 - 0.5)[:: size[0] // 20, :: size[0] // 20]  # pixels
    x, y = [lines[..., k] for k in range(dims) if k != 2 - view][::up]
    row[5].plot(x, y, "y", x.T, y.T, "y", lw=0.4, scalex=False, scaley=False)
figure.savefig(f"register_brain_{pair}.png", dpi=80)
