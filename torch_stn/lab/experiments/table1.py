"""One cell of the paper's Table 1: distorted MNIST, {FCN, CNN, ST-FCN, ST-CNN} x {R, RTS, P, E}.

    stn train table1 model=st-fcn transform=affine data=r

Source: Jaderberg et al. 2015, section 4.1, Table 1, and appendix A.4. Networks, distortions and parameter budget are
the paper's; the optimiser is ours (AdamW, cosine), which the paper's plain SGD is not.
"""

from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="table1",
    model="st-cnn",
    transform="affine",
    data="rts",
    steps=30_000,
    learning_rate=1e-3,
    localization_rate=3.0,
    weight_decay=0.0,
)
