"""The monitor: exact numbers of maps that are known, and the step since which a net has collapsed."""

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_stn import Affine, Attention, LocalizationFC, SpatialTransformer, Transform, Translation
from torch_stn.nn import CollapseWarning, Limits, Monitor

STILL = torch.tensor([1.0, 0, 0, 0, 1, 0])
QUICK = Limits(patience=3)


class Given(nn.Module):
    """Features that are the thetas of a script, whatever the picture."""

    def __init__(self, params: int) -> None:
        super().__init__()
        self.now = torch.zeros(1, params)
        self.out_features = params

    def forward(self, x: Tensor) -> Tensor:
        return self.now.expand(len(x), -1) if len(self.now) == 1 else self.now


def scripted(transform: Transform, **how: Any) -> SpatialTransformer:
    """A transformer whose theta is what its features say."""
    stn = SpatialTransformer(Given(transform.num_params * how.get("count", 1)), transform, **how)
    nn.init.eye_(stn.head.weight)
    nn.init.zeros_(stn.head.bias)
    return stn


def play(stn: SpatialTransformer, thetas: list[Tensor], batch: int = 4) -> None:
    """A training step for each theta, (P,) or (N, P)."""
    for theta in thetas:
        stn.features.now = theta.reshape(-1, stn.features.out_features)
        stn(torch.rand(len(stn.features.now) if len(stn.features.now) > 1 else batch, 1, 6, 6))


def affine(*rows: float) -> Tensor:
    return torch.tensor(rows)


class TestNumbers:
    def test_the_identity(self) -> None:
        stn = scripted(Affine())
        monitor = Monitor(stn)
        assert monitor.metrics() == {}
        play(stn, [STILL])
        assert monitor.metrics() == {
            "finite": 1.0,
            "outside": 0.0,
            "scale": 1.0,
            "scale_spread": 0.0,
            "determinant_min": 1.0,
            "determinant_max": 1.0,
            "folds": 0.0,
            "moved": 0.0,
            "spread": 0.0,
        }

    def test_a_zoom_out_and_a_mirror(self) -> None:
        stn = scripted(Affine())
        monitor = Monitor(stn)
        play(stn, [torch.stack([affine(4, 0, 0, 0, 1, 0), affine(-1, 0, 0, 0, 1, 0)])])
        numbers = monitor.metrics()
        assert numbers["scale"] == pytest.approx(math.sqrt(2))
        assert numbers["scale_spread"] == pytest.approx(math.log(2) / 2)
        assert (numbers["determinant_min"], numbers["determinant_max"]) == pytest.approx((-1, 4))
        assert numbers["folds"] == 0.5
        assert numbers["outside"] == pytest.approx(6 / 9 / 2)  # of nine columns at 4 x, those at -1, 0 and 1 are inside
        # Of the column x, the first moves by 3 x and the second by -2 x; the mean square of nine columns is 5 / 12.
        assert numbers["moved"] == pytest.approx(math.sqrt((9 + 4) / 2 * 5 / 12))
        assert numbers["spread"] == pytest.approx(2.5 * math.sqrt(5 / 12))

    def test_in_space(self) -> None:
        stn = scripted(Attention(3))
        monitor = Monitor(stn)
        stn.features.now = torch.tensor([[0.5, 0, 0, 0.5]])
        stn(torch.rand(2, 1, 4, 4, 4))
        numbers = monitor.metrics()
        assert numbers["scale"] == pytest.approx(0.5)
        assert numbers["determinant_max"] == pytest.approx(0.125)
        assert numbers["outside"] == 0

    def test_looks_count_as_one_map(self) -> None:
        stn = scripted(Attention(), iterations=2)
        monitor = Monitor(stn)
        play(stn, [torch.tensor([0.5, 0.0, 0.0])])
        assert monitor.metrics()["scale"] == pytest.approx(0.25)

    def test_several_transformers_have_their_names(self) -> None:
        model = nn.Sequential(scripted(Translation()), nn.Identity(), scripted(Attention(), count=2))
        monitor = Monitor(model)
        model[0].features.now = torch.tensor([[0.5, 0.0]])
        model[2].features.now = torch.tensor([[1.0, 0, 0, 0.5, 0, 0]])
        model(torch.rand(2, 1, 6, 6))
        numbers = monitor.metrics()
        assert numbers["0.moved"] == pytest.approx(0.5)
        assert numbers["2[0].scale"] == pytest.approx(1)
        assert numbers["2[1].scale"] == pytest.approx(0.5)
        assert len(numbers) == 27

    def test_the_residual_pose_of_a_perfect_and_of_an_idle_aligner(self) -> None:
        angles = torch.linspace(-0.5, 0.5, 64)
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(64)
        turned = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1)
        back = torch.stack([cos, sin, zero, -sin, cos, zero], dim=1)
        stn = scripted(Affine())
        for theta, left in ((back, 0.0), (STILL.expand(64, -1), math.degrees(float(angles.std(unbiased=False))))):
            monitor = Monitor(stn)
            monitor.know(Affine()(turned), torch.arange(64) % 2)
            play(stn, [theta])
            numbers = monitor.metrics()
            monitor.close()
            assert numbers["residual_rotation_deg"] == pytest.approx(left, rel=0.02, abs=0.02)
            assert numbers["residual_shift"] == pytest.approx(0, abs=1e-6)
            assert numbers["residual_log_scale"] == pytest.approx(0, abs=1e-6)


class TestWhatIsSeen:
    def test_every_tenth_step_of_training(self) -> None:
        stn = scripted(Translation())
        monitor = Monitor(stn)
        play(stn, [torch.tensor([0.01 * k, 0.0]) for k in range(25)])
        assert monitor.metrics()["moved"] == pytest.approx(0.2)

    def test_neither_evaluation_nor_looking_on(self) -> None:
        stn = scripted(Translation())
        monitor = Monitor(stn, every=1)
        play(stn, [torch.tensor([0.25, 0.0])])
        stn.eval()
        play(stn, [torch.tensor([0.5, 0.0])])
        stn.train()
        with torch.no_grad():
            play(stn, [torch.tensor([0.5, 0.0])])
        assert monitor.metrics()["moved"] == pytest.approx(0.25)
        monitor.close()
        play(stn, [torch.tensor([0.5, 0.0])])
        assert monitor.metrics()["moved"] == pytest.approx(0.25)

    def test_a_watched_run_is_an_unwatched_one(self) -> None:
        def weights(watched: bool) -> list[Tensor]:
            torch.manual_seed(0)
            model = nn.Sequential(
                SpatialTransformer(LocalizationFC((1, 6, 6)), Affine()), nn.Flatten(), nn.Linear(36, 2)
            )
            if watched:
                Monitor(model, every=1).know(Affine()(STILL[None]))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.rand(4, 1, 6, 6)).square().sum().backward()
                optimizer.step()
            return list(model.parameters())

        assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))

    @pytest.mark.slow  # torch.compile takes ten seconds to load
    def test_a_compiled_model(self) -> None:
        stn = scripted(Translation())
        monitor = Monitor(stn, every=1)
        stn.features.now = torch.tensor([[0.25, 0.0]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(stn, backend="eager")(torch.rand(2, 1, 6, 6))
        assert monitor.metrics()["moved"] == pytest.approx(0.25)


OUTSIDE = affine(1, 0, 5, 0, 1, 0)
COLLAPSES: dict[str, tuple[Tensor, str]] = {
    "outside": (OUTSIDE, "100% of the points read outside the image"),
    "zoomed in": (affine(0.01, 0, 0, 0, 0.01, 0), r"it zooms in until a pixel steps over 0\.01 of one"),
    "zoomed out": (
        affine(8, 0, 0, 0, 8, 0),
        "99% of the points read outside the image; it zooms out until a pixel steps over 8 of them",
    ),
    "mirrored": (affine(-1, 0, 0, 0, 1, 0), "100% of the map is folded or mirrored"),
    "not finite": (
        affine(math.nan, 0, 0, 0, 1, 0),
        "100% of the images have points that are not finite; 100% of the points read outside the image",
    ),
}


class TestCollapse:
    @pytest.mark.parametrize(("theta", "words"), COLLAPSES.values(), ids=COLLAPSES)
    def test_it_names_the_step_since_which_it_lasts(self, theta: Tensor, words: str) -> None:
        stn = scripted(Affine())
        monitor = Monitor(stn, every=1, limits=QUICK)
        play(stn, [STILL] * 7 + [theta] * 4)
        with pytest.warns(
            CollapseWarning, match=f"^SpatialTransformer: the localisation net has collapsed, since step 7: {words}"
        ):
            monitor.metrics()
        assert monitor.collapsed() == {"transformer": 7}

    def test_it_says_so_by_itself(self) -> None:
        stn = scripted(Affine())
        told: list[str] = []
        _monitor = Monitor(stn, every=2, limits=QUICK, tell=told.append)
        play(stn, [OUTSIDE] * 300)
        assert told == [
            "SpatialTransformer: the localisation net has collapsed, since step 0: 100% of the points read outside the image"
        ]

    def test_a_short_one_is_none(self) -> None:
        stn = scripted(Affine())
        monitor = Monitor(stn, every=1, limits=QUICK)
        play(stn, [STILL, OUTSIDE, OUTSIDE, STILL, OUTSIDE, OUTSIDE, STILL])
        assert monitor.collapsed() == {}

    def test_one_that_goes_on_after_a_break_begins_there(self) -> None:
        stn = scripted(Affine())
        told: list[str] = []
        monitor = Monitor(stn, every=1, first_step=100, limits=QUICK, tell=told.append)
        play(stn, [OUTSIDE, STILL, OUTSIDE, OUTSIDE, OUTSIDE, OUTSIDE, STILL, OUTSIDE, OUTSIDE, OUTSIDE])
        assert monitor.collapsed() == {"transformer": 102}
        assert len(told) == 1

    def test_the_same_map_for_every_picture(self) -> None:
        stn = scripted(Affine())
        told: list[str] = []
        monitor = Monitor(stn, every=1, limits=Limits(settle=5, patience=3), tell=told.append)
        play(stn, [STILL] * 4)
        assert monitor.collapsed() == {}
        play(stn, [STILL] * 4)
        assert monitor.collapsed() == {"transformer": 0}
        assert told[0].endswith("since step 0: it gives every image the same map (they differ by 0)")

    def test_one_picture_differs_from_nobody(self) -> None:
        stn = scripted(Affine())
        monitor = Monitor(stn, every=1, limits=Limits(settle=5, patience=3))
        play(stn, [STILL] * 8, batch=1)
        assert "spread" not in monitor.metrics()
        assert monitor.collapsed() == {}

    def test_of_several_it_names_the_one(self) -> None:
        model = nn.Sequential(scripted(Translation()), scripted(Translation()))
        told: list[str] = []
        monitor = Monitor(model, every=1, limits=QUICK, tell=told.append)
        model[1].features.now = torch.tensor([[3.0, 0.0]])
        for _ in range(3):
            model(torch.rand(2, 1, 6, 6))
        assert monitor.collapsed() == {"1": 0}
        assert told[0].startswith("1: the localisation net")

    def test_a_run_that_goes_on_remembers(self) -> None:
        first, second = scripted(Affine()), scripted(Affine())
        before = Monitor(first, every=1, limits=QUICK)
        play(first, [STILL, STILL, OUTSIDE, OUTSIDE])
        after = Monitor(second, every=1, first_step=4, limits=QUICK, tell=lambda words: None)
        after.load_state_dict(before.state_dict())
        assert after.metrics() == before.metrics()
        play(second, [OUTSIDE])
        assert after.collapsed() == {"transformer": 2}
        with pytest.raises(ValueError, match=r"^state: wanted that of \[''\], got that of \['0'\]$"):
            after.load_state_dict({"0": {}})


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: wanted a SpatialTransformer in it, found none in Linear$"):
        Monitor(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"^every: wanted at least 1, got 0$"):
        Monitor(scripted(Affine()), every=0)
