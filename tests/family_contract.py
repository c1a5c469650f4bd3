"""What every family of maps must do, whoever wrote it. A test class inherits this and gives the fixture `family`."""

import copy
import pickle

import pytest
import torch
from cases import SIZES, inner_points, ramp, thetas
from map_contract import MapContract, close
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Map, Transform, lowered, warp
from torch_stn.coordinates import base_axis, base_grid, base_pixel_axis, half_extents, to_pixel


def lowered_points(map: Map, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """The plain meaning of what the map is lowered to, in [-1, 1]."""
    form = map.lower(size, align_corners=align_corners)
    base = [base_axis(n, align_corners=align_corners, dtype=map.dtype) for n in reversed(size)]
    return lowered.points(form, size, base, [1.0] * map.dims, align_corners=align_corners)


class FamilyContract(MapContract):
    """The shared tests; `family` is a fresh Transform."""

    def test_theta_has_the_shape_that_it_says(self, family: Transform) -> None:
        assert family.num_params == torch.Size(family.theta_shape).numel()
        starts = [family.initial()]
        if family.has_identity:
            starts.append(family.identity())
            close(*starts, atol=0.1)
        else:
            with pytest.raises(ValueError, match=rf"^identity: {type(family).__name__} has none"):
                family.identity()
        for theta in starts:
            assert theta.shape == family.theta_shape
            assert theta.dtype == torch.float32
            assert not theta.requires_grad

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_identity_moves_nothing_at_all(self, family: Transform, dtype: torch.dtype) -> None:
        if not family.has_identity:
            return  # the test above holds that it says so
        map = family(family.identity()[None].to(dtype))
        xy = inner_points(1, 50, family.dims, reach=3.0).to(dtype)
        assert torch.equal(map.displacement(xy), torch.zeros_like(xy))
        assert torch.equal(map.jacobian(xy), torch.eye(family.dims, dtype=dtype).expand(1, 50, -1, -1))
        for size, _ in SIZES[family.dims]:
            for align_corners in (False, True):
                base = base_grid(size, align_corners=align_corners, dtype=dtype)[None]
                assert torch.equal(map.grid(size, align_corners=align_corners), base)
                assert torch.equal(lowered_points(map, size, align_corners), base)

    def test_theta_comes_flat_or_in_its_natural_shape(self, family: Transform) -> None:
        theta = thetas(family, 3)
        xy = inner_points(3, 20, family.dims)
        flat, natural = family(theta.flatten(1)), family(theta)
        assert isinstance(flat, Map)
        assert (flat.batch, flat.dims, flat.dtype) == (3, family.dims, torch.float64)
        assert torch.equal(flat.sources(xy), natural.sources(xy))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_theta_is_read_as_float32(self, family: Transform, dtype: torch.dtype) -> None:
        theta = thetas(family).to(dtype)
        xy = inner_points(2, 20, family.dims).float()
        map = family(theta)
        assert map.dtype == torch.float32
        assert torch.equal(map.sources(xy), family(theta.float()).sources(xy))
        assert map.sources(xy.to(dtype)).dtype == torch.float32

    def test_float32_agrees_with_float64(self, family: Transform) -> None:
        theta, xy = thetas(family).float(), inner_points(2, 20, family.dims).float()
        close(family(theta).sources(xy).double(), family(theta.double()).sources(xy.double()), atol=1e-6)

    def test_points_of_any_shape_and_a_batch_of_one_on_either_side(self, family: Transform) -> None:
        theta, d = thetas(family, 3), family.dims
        many = inner_points(3, 24, d)
        whole = family(theta).sources(many)
        assert whole.shape == (3, 24, d)
        assert torch.equal(family(theta).sources(many.reshape(3, 2, 3, 4, d)), whole.reshape(3, 2, 3, 4, d))
        close(family(theta).sources(many[:, 0]), whole[:, 0])
        one_theta, one_cloud = family(theta[:1]).sources(many), family(theta).sources(many[:1])
        for i in range(3):
            close(one_theta[i], family(theta[:1]).sources(many[i : i + 1])[0])
            close(one_cloud[i], family(theta[i : i + 1]).sources(many[:1])[0])
        assert family(theta[:0]).sources(many[:0]).shape == (0, 24, d)
        assert family(theta).sources(many[:, :0]).shape == (3, 0, d)

    def test_gradients(self, family: Transform) -> None:
        family.double()
        theta = thetas(family).requires_grad_()
        xy = inner_points(2, 3, family.dims).requires_grad_()
        learned = list(family.parameters())
        many = theta.numel() > 80  # then a random direction each, not every number of theta by itself
        assert gradcheck(lambda theta, xy, *_: family(theta).sources(xy), (theta, xy, *learned), fast_mode=many)
        assert gradgradcheck(lambda theta, xy, *_: family(theta).sources(xy), (theta, xy, *learned), fast_mode=True)

    def test_gradients_of_the_lowered_form(self, family: Transform) -> None:
        family.double()
        size = SIZES[family.dims][2][1]
        learned = list(family.parameters())
        theta = thetas(family, 1).requires_grad_()
        assert gradcheck(lambda t, *_: lowered_points(family(t), size, False), (theta, *learned), fast_mode=True)

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_the_lowered_form_is_the_map_on_the_base_grid(self, family: Transform, align_corners: bool) -> None:
        for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
            map = family(thetas(family).to(dtype))
            for in_size, size in SIZES[family.dims]:
                grid = map.grid(size, align_corners=align_corners)
                assert grid.shape == (2, *size, family.dims)
                base = base_grid(size, align_corners=align_corners, dtype=dtype)[None]
                close(grid, map.sources(base), atol)
                close(lowered_points(map, size, align_corners), grid, atol)
                pairs = zip(reversed(size), reversed(in_size), strict=True)
                pixels = [base_pixel_axis(*pair, align_corners=align_corners, dtype=dtype) for pair in pairs]
                form = map.lower(size, align_corners=align_corners)
                scale = half_extents(in_size, align_corners)
                got = lowered.points(form, size, pixels, scale, align_corners=align_corners)
                close(got, to_pixel(grid, in_size, align_corners=align_corners), 10 * atol)

    def test_warping_a_ramp_reads_off_the_sources(self, family: Transform) -> None:
        size = (7, 9) if family.dims == 2 else (5, 4, 6)
        map = family(thetas(family))
        read, mask = warp(ramp(size), map, return_mask=True)
        wanted = to_pixel(map.grid(size), size).movedim(-1, 1)
        inside = (mask > 1 - 1e-9).expand_as(read)
        assert inside.double().mean() > 0.3
        close(read[inside], wanted[inside], 1e-11)

    def test_a_wrong_theta_is_named(self, family: Transform) -> None:
        good, name = thetas(family), type(family).__name__
        shapes = [(2, family.num_params + 1), (family.num_params + 1,), (2, 1, *family.theta_shape), ()]
        for shape in shapes:
            with pytest.raises(ValueError, match=rf"^theta: {name} wanted .*N.*got \({', '.join(map(str, shape))}"):
                family(torch.zeros(shape))
        with pytest.raises(TypeError, match=r"^theta: .*floating.*int64"):
            family(torch.zeros_like(good, dtype=torch.int64))
        with pytest.raises(TypeError, match=r"^theta: .*Tensor.*list"):
            family(good.tolist())
        with pytest.raises(ValueError, match=rf"^xy: .*{family.dims}"):
            family(good).sources(torch.zeros(2, 3, 5 - family.dims))
        with pytest.raises(ValueError, match=r"^xy: .*batch.*2.*3"):
            family(good).sources(torch.zeros(3, 4, family.dims))
        with pytest.raises(ValueError, match=r"^size: "):
            family(good).grid((4,))
        with pytest.raises(ValueError, match=r"^boxes: "):
            family(good).boxes(torch.zeros(2, 3, 5))

    def test_constants_stay_exact_and_out_of_checkpoints(self, family: Transform) -> None:
        theta, xy = thetas(family).float(), inner_points(2, 10, family.dims).float()
        before = {name: buffer.clone() for name, buffer in family.named_buffers()}
        assert set(family.state_dict()) == {name for name, _ in family.named_parameters()}
        for cast in (family.half, family.bfloat16, family.float, family.double):
            cast()
            for name, buffer in family.named_buffers():
                assert buffer.dtype == before[name].dtype, name
                assert torch.equal(buffer, before[name]), name
            if family.has_identity:
                assert torch.equal(family(family.identity()[None]).sources(xy[:1]), xy[:1])
            assert family(theta).sources(xy).dtype == torch.float32

    def test_copies_are_whole_and_apart(self, family: Transform) -> None:
        size, theta = SIZES[family.dims][1][0], thetas(family)
        wanted = family(theta).grid(size)
        lowered_points(family(theta), size, False)  # whatever the family keeps for later calls
        for other in (copy.deepcopy(family), pickle.loads(pickle.dumps(family))):
            assert torch.equal(other(theta).grid(size), wanted)
            assert torch.equal(lowered_points(other(theta), size, False), lowered_points(family(theta), size, False))
            mine = [*family.parameters(), *family.buffers()]
            assert not {t.data_ptr() for t in mine} & {t.data_ptr() for t in [*other.parameters(), *other.buffers()]}

    def test_what_one_call_keeps_serves_every_later_call(self, family: Transform) -> None:
        """Constants that were first made where tensors are special must not spoil the training that follows."""
        sizes = [(4, 5), (5, 4), (3, 3)] if family.dims == 2 else [(2, 3, 4), (3, 2, 4), (2, 2, 2)]
        theta = thetas(family)
        with torch.inference_mode():
            family(theta.clone()).lower(sizes[0])
        torch.func.grad(lambda t: lowered_points(family(t), sizes[1], False).sum())(theta)
        torch.vmap(lambda t: lowered_points(family(t[None]), sizes[2], False))(theta)
        for size in sizes:
            variable = theta.clone().requires_grad_()
            points = lowered_points(family(variable), size, False)
            close(points, family(theta).grid(size))
            points.square().sum().backward()
            assert variable.grad is not None
            assert torch.isfinite(variable.grad).all()
