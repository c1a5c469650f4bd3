"""The network of PyTorch's spatial transformer tutorial on plain MNIST, without its border flaw.

    stn train tutorial

Public runs of the tutorial reach 98.5 to 98.9 % after 20 epochs.
Source: the PyTorch tutorial "Spatial Transformer Networks".
"""

from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="tutorial",
    model="tutorial",
    data="plain",
    steps=0,
    epochs=20,
    batch_size=128,
    learning_rate=2e-3,
    warmup=0.1,
    checkpoint_every=1000,
)
