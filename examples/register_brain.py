"""One brain onto another by plain gradient descent: an affine map, then the flow of a velocity field.

TORCH_STN_DATA=... python examples/register_brain.py 3d    # a subject to MNI152, 2 mm volumes; 2d: one slice to another
Prints the normalised cross-correlation and the number of folds; writes register_brain_3d.png or register_brain_2d.png.
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
file, *names = PAIRS[sys.argv[1] if len(sys.argv) > 1 else "3d"]
if not os.path.isfile(path := os.path.join(os.environ.get("TORCH_STN_DATA", ""), file)):
    sys.exit(f"TORCH_STN_DATA: wanted a folder that holds {file}, got {os.environ.get('TORCH_STN_DATA')!r}")
moving, fixed = (torch.from_numpy(np.load(path)[name])[None, None].float() / 255 for name in names)
half = [F.interpolate(x, scale_factor=0.5, mode="area") for x in (moving, fixed)]
size, dims, started = fixed.shape[2:], fixed.dim() - 2, time.time()
pool = F.avg_pool3d if dims == 3 else F.avg_pool2d


def correlation(a, b, mean=torch.mean):
    """Over the picture; with a local mean, the mean square over windows."""
    covariance, va, vb = mean(a * b) - mean(a) * mean(b), mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    return covariance / (va * vb).sqrt() if mean is torch.mean else (covariance**2 / (va * vb).clamp(min=1e-4)).mean()


def descend(name, parameter, loss, steps, rate):
    """Adam."""
    optimizer = torch.optim.Adam([parameter], lr=rate, eps=1e-5)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
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

figure, axes = plt.subplots(2 * dims - 3, 6, figsize=(15, 2.8 * (2 * dims - 3)), squeeze=False)
for view, row in enumerate(axes):
    cuts = [
        x.select(view, x.shape[view] // 2) if dims == 3 else x for x in (*(i[0, 0] for i in images), jacobian, grid)
    ]
    for k, (cut, title) in enumerate(zip(cuts, ("moving", "affine", "then flow", "fixed", "Jacobian"), strict=False)):
        row[k].imshow(cut, cmap="coolwarm" if k == 4 else "gray", vmin=0, vmax=2 if k == 4 else 1)
        row[k].set_title(title)
    x, y = (cuts[-1][::4, ::4, axis] for axis in range(dims) if dims == 2 or axis != 2 - view)
    row[5].plot(x, y, "k", x.T, y.T, "k", lw=0.4)
    row[5].invert_yaxis()
figure.savefig(f"register_brain_{dims}d.png", bbox_inches="tight", dpi=80)
