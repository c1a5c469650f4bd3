"""All goals, in the order in which they are measured, with their seconds: all of them fit a run of nine minutes."""

from __future__ import annotations

from gpu_goals import exactness, peaks, processes, races, speed, training
from gpu_goals.lines import Goal

GOALS = (
    Goal(0, "The tests on the device", 80, processes.suite),
    Goal(1, "Forward, tensors of 64 MB and more", 85, speed.forward),
    Goal(2, "Backward, the same tensors, same bits every time", 75, speed.backward),
    Goal(3, "Against F.grid_sample(x, F.affine_grid(theta))", 90, races.tasks),
    Goal(4, "Volumes", 30, speed.volumes),
    Goal(5, "Images in bfloat16", 10, exactness.halves),
    Goal(6, "Same bits, whatever the map", 45, exactness.repeats),
    Goal(7, "Memory", 15, peaks.tasks),
    Goal(8, "The sampler in a training step", 20, training.tasks),
    Goal(6, "No stray access", 60, processes.checker),  # last: nobody knows how long it takes
)
