"""Your own images: one sub-folder a class, or a CSV file of file,label.

    stn train folder data=PATH

A small residual net from nothing, behind a spatial transformer; `transform=none` is its twin. Measured on 600 photos in
three classes: docs/folder.md.
"""

from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="folder",
    source="folder",
    data="",  # a path has no default
    model="resnet",
    transform="affine",
    steps=0,
    epochs=60.0,
    batch_size=32,
    learning_rate=2e-3,
    # What the localisation net turns, the classifier must follow: photographs are few.
    localization_rate=0.3,
    weight_decay=0.05,
    warmup=0.05,
    checkpoint_every=200,
    test_distortions=1,  # images are judged as they are
)
