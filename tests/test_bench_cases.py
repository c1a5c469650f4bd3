"""The benchmark's cases and inputs: what they say is what is measured."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from torch_stn.lab.bench import cases, inputs, parity
from torch_stn.lab.bench.cases import CPU, SUITES, Case, select, suite
from torch_stn.lab.bench.contenders import Contender, all_of_ours, ours, who_serves
from torch_stn.lab.bench.inputs import make, pixel_matrix
from torch_stn.lab.bench.rivals import RIVALS, rivals
from torch_stn.lab.errors import UserError
from torch_stn.sampling.choose import BACKENDS

SMALL = Case("small", (2, 3, 7, 9), (5, 8))
FORMS = {
    "affine": SMALL,
    "projective": replace(SMALL, family="projective"),
    "tps": replace(SMALL, family="tps"),
    "points": replace(SMALL, family="points"),
    "volume": Case("volume", (2, 2, 5, 4, 6), (3, 6, 5)),
    "volume, points": Case("volume", (1, 2, 5, 4, 6), (3, 6, 5), family="points"),
    "shared": replace(SMALL, image=(1, 3, 7, 9), maps=4),
    "channels_last": replace(SMALL, channels_last=True),
    "corners, border": replace(SMALL, align_corners=True, padding="border"),
    "nearest": replace(SMALL, mode="nearest", gradients=("image",)),
    "bicubic": replace(SMALL, mode="bicubic"),
    "no gradients": replace(SMALL, gradients=()),
    "theta only": replace(SMALL, gradients=("theta",)),
    "bfloat16": replace(SMALL, dtype="bfloat16"),
    "float64": replace(SMALL, dtype="float64"),
}


@pytest.mark.parametrize("name", SUITES)
def test_names_are_unique_and_begin_with_the_shape(name: str) -> None:
    names = [case.name for case in suite(name)]
    assert len(set(names)) == len(names)
    for case in suite(name):
        assert case.name.split()[0] == "x".join(map(str, case.image))
        assert len(case.image) == case.dims + 2
        assert case.maps == 0 or case.image[0] == 1


def test_the_suite_holds_the_shapes_the_project_promises_for() -> None:
    wanted = {case.name: case.wanted for case in CPU if None not in case.wanted and max(case.wanted) > 1}  # type: ignore[type-var]
    assert wanted["256x1x28x28"] == (7, 4)
    assert wanted["2x3x1080x1920"] == (4.5, 3.2)
    assert wanted["1x1x128x128x128"] == (14, 6)
    assert sum(name.endswith("odd") for name in wanted) == 5


def test_select() -> None:
    assert select(CPU, None) == CPU
    assert [case.name for case in select(CPU, "8x3x224x224")] == ["8x3x224x224"]
    assert len(select(CPU, "*224*")) > 5
    for pattern in ("17x17", "", ","):
        with pytest.raises(UserError, match="--cases: no case is like"):
            select(CPU, pattern)


def test_every_rival_that_can_be_named_is_there() -> None:
    assert tuple(RIVALS) == cases.RIVALS


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_what_the_case_says(form: str) -> None:
    case = FORMS[form]
    first, again = make(case), make(case)
    assert first.image.shape == case.image
    assert first.upstream.shape == (case.batch, case.image[1], *case.size)
    assert first.image.dtype == first.upstream.dtype == getattr(torch, case.dtype)
    assert first.theta.dtype == (torch.float64 if case.dtype == "float64" else torch.float32)
    assert first.theta.shape[0] == case.batch
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.theta, again.theta)
    for image in (first.image, first.smooth().image):
        assert image.is_contiguous(memory_format=torch.channels_last) == case.channels_last


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("form", ["affine", "projective", "volume"])
def test_the_pixel_matrix_reads_where_the_map_reads(form: str, corners: bool) -> None:
    case = replace(FORMS[form], align_corners=corners)
    theta = make(case).theta.double()
    low, high = [0.0] * case.dims, [float(n - 1) for n in case.size[::-1]]
    pixels = torch.tensor([low, high, [0.3, *high[1:]]], dtype=torch.float64)

    def normal(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        n = torch.tensor(size[::-1], dtype=torch.float64)
        return 2 * x / (n - 1) - 1 if corners else (2 * x + 1) / n - 1

    wanted = inputs.map_of(case, theta).sources(normal(pixels, case.size)[None])
    moved = torch.cat([pixels, torch.ones(3, 1, dtype=torch.float64)], dim=1) @ pixel_matrix(case, theta).mT
    assert_close(normal(moved[..., :-1] / moved[..., -1:], case.image[2:]), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_ours_and_torchs_agree_with_the_reference(form: str) -> None:
    start = make(FORMS[form])
    truth = parity.truth(start)
    for contender in all_of_ours(start):
        found = parity.require(contender, truth)
        assert set(found) == {"picture", *FORMS[form].gradients}
    able, missing = rivals(("aten",), start)
    assert missing == {}
    assert parity.error(able[0], truth) <= parity.allowed(FORMS[form], "picture")


@pytest.mark.parametrize("what", ["picture", "image", "theta"])
def test_parity_notices_a_wrong_picture_and_a_wrong_gradient(what: str) -> None:
    start = make(SMALL)
    right = ours(start).read

    def wrong(image: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        picture = right(image, theta)
        if what == "picture":
            return picture * 1.001
        off = image if what == "image" else theta
        return picture + 0.01 * (off - off.detach()).sum()

    with pytest.raises(parity.NoParity, match=r"small: the (picture|gradient of (image|theta)) of stn .* nothing was"):
        parity.require(Contender("stn", wrong, start, "aten"), parity.truth(start))
    with pytest.raises(parity.NoParity, match="nan"):
        parity.require(Contender("stn", lambda i, t: right(i, t) * float("nan"), start), parity.truth(start))


def test_the_truth_in_pieces_is_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in (SMALL, FORMS["shared"]):
        whole = parity.truth(make(case))
        monkeypatch.setattr(parity, "AT_ONCE", 1)
        pieces = parity.truth(make(case))
        monkeypatch.undo()
        assert_close(pieces.picture, whole.picture, rtol=0, atol=1e-13)
        for name in case.gradients:
            assert_close(pieces.gradients[name], whole.gradients[name], rtol=1e-12, atol=1e-12)


def test_listening_leaves_the_backends_as_they_were() -> None:
    before = list(BACKENDS.items())
    serving, passed_over = who_serves(ours(make(SMALL)))
    assert list(BACKENDS.items()) == before
    assert serving in BACKENDS
    assert serving not in passed_over
    with pytest.raises(ValueError, match="fill"):
        who_serves(Contender("stn", _fails, make(SMALL)))
    assert list(BACKENDS.items()) == before


def _fails(image: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    raise ValueError("fill: of a test")


def test_a_rival_that_fails_or_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    start = make(SMALL)
    monkeypatch.setitem(RIVALS, "aten", lambda given: Contender("aten", _fails, given))
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    able, missing = rivals(("aten", "kornia", "opencv"), start)
    assert able == []
    assert missing == {
        "aten": "fails: ValueError: fill: of a test",
        "kornia": "not installed: pip install kornia",
        "opencv": "not installed: pip install opencv-python-headless",
    }


@pytest.mark.parametrize(("name", "package"), [("kornia", "kornia"), ("opencv", "cv2")])
@pytest.mark.parametrize("form", ["affine", "projective", "points", "shared", "volume"])
def test_rivals_read_the_same_points(form: str, name: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'torch-stn[bench]'")
    start = make(FORMS[form])
    able, missing = rivals((name,), start)
    if form == "volume" and name == "opencv":
        assert missing == {"opencv": "no volumes"}
        return
    assert missing == {}
    # OpenCV may round coordinates to 1/32 of a pixel.
    assert parity.error(able[0], parity.truth(start)) < (0.03 if name == "opencv" else 1e-5)
