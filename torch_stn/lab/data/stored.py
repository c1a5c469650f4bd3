"""Images that stay where they are: which bytes of which shard each one is, and its pixels when they are asked for."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from torch_stn.lab.data.decode import NotAnImageError, decode
from torch_stn.lab.data.listing import shown
from torch_stn.lab.data.places import read_part, reason
from torch_stn.lab.errors import UserError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Stored:
    """n images in shards: 28 bytes of memory each, and their labels."""

    shards: tuple[Path, ...]
    shard: Array  # (n,) int32, which one
    offset: Array  # (n,) int64, bytes
    length: Array  # (n,) int64, bytes
    checksum: Array  # (n,) int64, CRC-32 of them
    size: int  # pixels a side
    grey: bool

    def __len__(self) -> int:
        return len(self.shard)

    def read(self, index: int) -> Array:  # (S, S, C) uint8
        """The pixels of one image; from any thread, since each call reads the shard for itself.

        Raises: UserError where the bytes are no longer those of the index.
        """
        path = self.shards[self.shard[index]]
        try:
            data = read_part(path, int(self.offset[index]), int(self.length[index]))
            if zlib.crc32(data) != self.checksum[index]:
                raise NotAnImageError("other bytes")
            return decode(BytesIO(data), self.size, grey=self.grey)[0]
        except OSError as error:
            raise UserError(f"{shown(str(path))}: {reason(error)}") from None
        except NotAnImageError:
            raise UserError(
                f"{shown(str(path))}: holds other bytes at {self.offset[index]} than when it was indexed; "
                f"wanted a shard that stays as it is while a run goes on"
            ) from None
