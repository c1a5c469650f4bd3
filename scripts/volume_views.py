"""The picture of volumes before and after the transformer, of a run of `stn reproduce volumes`.

python scripts/volume_views.py runs/reproduce/volumes/st-cnn-0 docs/images/volumes.png
"""

import sys
from pathlib import Path

from torch_stn.lab.volume_views import volumes_picture

if __name__ == "__main__":
    print(volumes_picture(Path(sys.argv[1]), Path(sys.argv[2])))
