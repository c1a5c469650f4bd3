"""What is measured: pure data, a row a case. A new row needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch_stn.lab.errors import UserError


@dataclass(frozen=True)
class Case:
    """One call that is measured; what does not stand in a row is F.grid_sample's default."""

    name: str
    image: tuple[int, ...]  # (N, C, H, W) or (N, C, D, H, W)
    size: tuple[int, ...]  # (h, w) or (d, h, w)
    # affine | projective | tps (16 points) | displacement (8 x 8), or "points": points given, the map is not ours
    family: str = "affine"
    mode: str = "bilinear"
    padding: str = "zeros"
    align_corners: bool = False
    dtype: str = "float32"
    channels_last: bool = False
    maps: int = 0  # how many maps read a shared image (N = 1); 0: one an image
    gradients: tuple[str, ...] = (
        "image",
        "theta",
    )  # what is differentiated; "theta" are the points where those are given
    # How many times eager's time the project asks of itself, forward and forward + backward.
    wanted: tuple[float | None, float | None] = (None, None)

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.size)

    @property
    def batch(self) -> int:
        """How many pictures come out."""
        return self.maps or self.image[0]


def _same(name: str, *image: int, wanted: tuple[float | None, float | None] = (None, None), **options: object) -> Case:
    """A case whose output has the size of its image, which its name begins with."""
    label = "x".join(map(str, image)) + (f" {name}" if name else "")
    return Case(label, image, image[2:], wanted=wanted, **options)  # type: ignore[arg-type]


_ODD = (3.0, 2.5)  # shapes that no tuning has seen
_NOT_SLOWER = (1.0, 1.0)

CPU = (
    _same("", 256, 1, 28, 28, wanted=(7, 4)),
    Case("64x1x60x60 to 28x28", (64, 1, 60, 60), (28, 28), wanted=(6, 2.5)),
    _same("", 64, 64, 28, 28, wanted=(4, 4.5)),
    _same("", 16, 256, 14, 14, wanted=(6, 5)),
    _same("", 8, 3, 224, 224, wanted=(3.6, 3.2)),
    _same("", 2, 3, 1080, 1920, wanted=(4.5, 3.2)),
    _same("", 1, 1, 128, 128, 128, wanted=(14, 6)),
    _same("odd", 7, 5, 37, 53, wanted=_ODD),
    _same("odd", 3, 2, 301, 199, wanted=_ODD),
    _same("odd", 2, 17, 65, 31, wanted=_ODD),
    Case("5x1x97x201 to 33x77 odd", (5, 1, 97, 201), (33, 77), wanted=_ODD),
    _same("odd", 1, 3, 63, 47, 29, wanted=_ODD),
    _same("projective", 256, 1, 28, 28, family="projective", wanted=_NOT_SLOWER),
    _same("projective", 8, 3, 224, 224, family="projective", wanted=_NOT_SLOWER),
    _same("tps", 64, 1, 28, 28, family="tps", wanted=(3, 3)),
    _same("tps", 8, 3, 224, 224, family="tps", wanted=(3, 3)),
    _same("bicubic", 8, 3, 224, 224, mode="bicubic", wanted=(1, 4)),
    _same("nearest", 8, 3, 224, 224, mode="nearest", gradients=("image",), wanted=_NOT_SLOWER),
    _same("border", 8, 3, 224, 224, padding="border", wanted=_NOT_SLOWER),
    _same("reflection", 8, 3, 224, 224, padding="reflection", wanted=_NOT_SLOWER),
    _same("border", 2, 2, 48, 48, 48, padding="border", wanted=_NOT_SLOWER),
    _same("align_corners", 8, 3, 224, 224, align_corners=True, wanted=_NOT_SLOWER),
    _same("points", 8, 3, 224, 224, family="points", wanted=_NOT_SLOWER),
    _same("points", 1, 1, 96, 96, 96, family="points", wanted=_NOT_SLOWER),
    _same("theta only", 256, 1, 28, 28, gradients=("theta",), wanted=_NOT_SLOWER),
    Case("1x3x224x224 under 16 maps", (1, 3, 224, 224), (224, 224), maps=16, wanted=_NOT_SLOWER),
    _same("channels_last", 8, 32, 56, 56, channels_last=True, wanted=_NOT_SLOWER),
    _same("many channels", 4, 512, 32, 32, wanted=_NOT_SLOWER),
    _same("bfloat16", 8, 3, 224, 224, dtype="bfloat16", wanted=_NOT_SLOWER),
    _same("bfloat16", 64, 64, 28, 28, dtype="bfloat16", wanted=_NOT_SLOWER),
    _same("float64", 8, 3, 224, 224, dtype="float64", wanted=_NOT_SLOWER),
    _same("overhead", 1, 1, 4, 4, wanted=_NOT_SLOWER),
)

GPU = (
    _same("", 4096, 1, 28, 28, wanted=(16, 10)),
    _same("", 256, 64, 56, 56, wanted=(1.9, 3.8)),
    _same("", 64, 256, 28, 28, wanted=(3.5, 4.5)),
    Case("32x3x512x512 to 224x224", (32, 3, 512, 512), (224, 224), wanted=(4, 13)),
    _same("", 64, 3, 512, 512, wanted=(9.4, 23)),
    _same("", 8, 3, 2160, 3840, wanted=(9.5, 130)),
    _same("projective", 64, 3, 512, 512, family="projective"),
    _same("tps", 64, 3, 512, 512, family="tps"),
    _same("bfloat16", 256, 64, 56, 56, dtype="bfloat16"),
    _same("bfloat16", 64, 3, 512, 512, dtype="bfloat16"),
    _same("", 2, 1, 256, 256, 256),
    _same("", 1, 16, 128, 128, 128),
    _same("points", 64, 3, 512, 512, family="points"),
    _same("overhead", 1, 1, 4, 4),
)

RIVALS = ("aten", "compile", "kornia", "opencv")  # PyTorch's two steps, eager and compiled, and two libraries
SUITES: dict[str, tuple[Case, ...]] = {"cpu": CPU, "gpu": GPU}


def suite(name: str) -> tuple[Case, ...]:
    """The cases of a suite. Raises: UserError for an unknown one."""
    if name not in SUITES:
        raise UserError(f"--suite: wanted one of {', '.join(SUITES)}, got {name!r}")
    return SUITES[name]


def select(cases: tuple[Case, ...], pattern: str | None) -> tuple[Case, ...]:
    """The cases that one of the comma-separated patterns names, else matches or is a part of; all of them for None.

    >>> [case.name for case in select(CPU, "*tps*,8x3x224x224,head")]
    ['8x3x224x224', '64x1x28x28 tps', '8x3x224x224 tps', '1x1x4x4 overhead']
    """
    if pattern is None:
        return cases
    words = [word.strip() for word in pattern.split(",") if word.strip()]
    names = {case.name for case in cases}

    def like(name: str, word: str) -> bool:
        return name == word if word in names else fnmatchcase(name, word) or word in name

    found = tuple(case for case in cases if any(like(case.name, word) for word in words))
    if not found:
        raise UserError(f"--cases: no case is like {pattern!r}; there are {', '.join(c.name for c in cases)}")
    return found


def chosen(words: str) -> tuple[str, ...]:
    """The rivals of a comma-separated list. Raises: UserError for an unknown one."""
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in RIVALS:
            raise UserError(f"--against: wanted some of {','.join(RIVALS)}, got {name!r}")
    return names
