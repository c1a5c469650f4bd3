"""The sampling frame: where a transformer looks, drawn on its input."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn import warp
from torch_stn.lab.pose import frame
from torch_stn.transforms import Affine, ThinPlateSpline


@pytest.mark.parametrize("size", [(28, 28), (42, 42), (20, 30)])
def test_the_frame_of_the_identity_lies_on_the_outer_edges_of_the_pixels(size: tuple[int, int]) -> None:
    lines = frame(Affine()(torch.eye(2, 3)[None]), size)
    assert lines.shape == (1, 10, 17, 2)
    h, w = size
    across, down = lines[0, :5], lines[0, 5:]
    rows, columns = torch.linspace(-0.5, h - 0.5, 5), torch.linspace(-0.5, w - 0.5, 5)
    # Horizontal lines first, from the top; along each x runs over the whole width.
    torch.testing.assert_close(across[..., 1], rows[:, None].expand(5, 17))
    torch.testing.assert_close(across[..., 0], torch.linspace(-0.5, w - 0.5, 17).expand(5, 17))
    torch.testing.assert_close(down[..., 0], columns[:, None].expand(5, 17))
    torch.testing.assert_close(down[..., 1], torch.linspace(-0.5, h - 0.5, 17).expand(5, 17))


def test_the_frame_goes_where_the_transformer_reads() -> None:
    zoom = frame(Affine()(torch.tensor([[[0.5, 0, 0.25], [0, 0.5, 0]]])), (28, 28))[0]
    # Half the size, and a quarter of the half width to the right.
    assert zoom[..., 0].min().item() == pytest.approx(13.5 - 7 + 3.5)
    assert zoom[..., 0].max().item() == pytest.approx(13.5 + 7 + 3.5)
    assert zoom[..., 1].min().item() == pytest.approx(13.5 - 7)
    assert zoom[..., 1].max().item() == pytest.approx(13.5 + 7)


def test_what_lies_inside_the_frame_is_what_the_transformer_shows() -> None:
    image = torch.rand(1, 1, 28, 28)
    theta = torch.tensor([[[0.6, 0.3, 0.1], [-0.2, 0.5, -0.2]]])
    map = Affine()(theta)
    corners = frame(map, (28, 28))[0, [0, 4], :][:, [0, -1]].reshape(
        4, 2
    )  # top left, top right, bottom left, bottom right
    output = warp(image, map, (280, 280))  # fine, so that its corner pixels lie at the corners
    assert isinstance(output, Tensor)
    shown = torch.stack([output[0, 0, i, j] for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1))])
    normalised = (corners - 13.5) / 13.5
    read = F.grid_sample(image, normalised[None, None], align_corners=True)[0, 0, 0]
    torch.testing.assert_close(shown, read, atol=0.06, rtol=0)


def test_the_frame_of_a_spline_is_bent_and_that_of_an_affine_map_is_not() -> None:
    def bend(lines: Tensor) -> float:
        ends = torch.linspace(0, 1, 17)[:, None]
        straight = lines[..., :1, :] * (1 - ends) + lines[..., -1:, :] * ends
        return float((lines - straight).abs().max())

    spline = ThinPlateSpline(4)
    theta = spline.control_points + 0.15 * torch.randn(3, 16, 2)
    assert bend(frame(spline(theta), (28, 28))) > 0.5
    assert bend(frame(Affine()(torch.eye(2, 3) + 0.3 * torch.randn(3, 2, 3)), (28, 28))) < 1e-4
