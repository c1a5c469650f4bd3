"""A transformer at any layer: on the image, behind the first or the second convolution of the CNN; rotated digits (R).

    stn reproduce any_layer
    stn train any_layer layer=1 shared=true

Behind a layer it warps that layer's maps. Its localisation net looks at the image (own features), or at those maps
(shared with the classifier).
Source: Jaderberg et al. 2015, section 3.4, that it can stand anywhere. No paper has this table; Finnveden et al. 2020,
"Understanding when spatial transformer networks do not support invariance", say what to expect: the maps of a turned
image are not turned maps of it, so a transformer behind a layer cannot undo a rotation. What we measured:
docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="any_layer",
    model="st-cnn",
    transform="affine",
    data="r",
    layer=1,
    steps=30_000,
    learning_rate=1e-3,
    localization_rate=3.0,
    weight_decay=0.0,
)
PLACES = {"input": (0, False)} | {
    f"layer {layer}, {word} features": (layer, shared)
    for layer in (1, 2)
    for word, shared in (("own", False), ("shared", True))
}


def _cells() -> list[Cell]:
    base = replace(CONFIG, digits="mnist", tensorboard=False)
    rows = {"CNN, none": replace(base, model="cnn", layer=0)}
    for word, (layer, shared) in PLACES.items():
        rows[word] = replace(base, layer=layer, shared=shared)
    return [Cell(row.lower().replace(",", "").replace(" ", "-"), row, "R", each, None) for row, each in rows.items()]


TABLE = Table(
    name="any_layer",
    title="ST-CNN affine: where the transformer stands",
    source="no table of the paper; section 3.4 says that it can stand at any layer",
    cells=tuple(_cells()),
)
