"""Traffic signs (GTSRB), judged by the complete official test set.

    stn train signs

`validation=0.2` judges by tracks of the training set instead, which is where settings are to be chosen. `data=PATH`
names the published folders or the archive; without it they are looked for in $TORCH_STN_DATA/gtsrb.
Source: Stallkamp et al. 2012, "Man vs. computer"; the network and its training are ours.
"""

from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="signs",
    source="gtsrb",
    data="",
    size=32,
    validation=0.0,
    together="_",  # frames of one track
    colour_jitter=0.3,
    model="resnet",
    steps=0,
    epochs=40.0,
    batch_size=128,
    learning_rate=2e-3,
    localization_rate=0.3,
    weight_decay=0.05,
    warmup=0.05,
    test_distortions=1,
)
