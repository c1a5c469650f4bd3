"""Tracers other than torch.compile, and what must never reach the C++ kernels: tensors without memory, or of a dtype
that they do not know.
"""

from collections.abc import Callable

import pytest
import torch
from cases import thetas
from test_cpu_kernels import needs_kernels
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from torch_stn import Affine, ThinPlateSpline, sample, warp
from torch_stn.sampling.backends.cpu_call import How, forward

AFFINE = Affine()


def warped(image: Tensor, theta: Tensor) -> Tensor:
    return warp(image, AFFINE(theta), size=(4, 5))


def sampled(image: Tensor, points: Tensor) -> Tensor:
    return sample(image, points, padding_mode="border")


def inputs(call: Callable[..., Tensor], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 6, 7, generator=generator)
    given = thetas(AFFINE, 2, spread=0.2, seed=seed).float() if call is warped else None
    return image, torch.rand(2, 9, 2, generator=generator) * 2 - 1 if given is None else given


EVERY_CALL = pytest.mark.parametrize("call", [warped, sampled])


@EVERY_CALL
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_jit_trace_serves_other_inputs(call: Callable[..., Tensor]) -> None:
    trace = torch.jit.trace(call, inputs(call, 0), check_trace=False)
    torch.testing.assert_close(trace(*inputs(call, 1)), call(*inputs(call, 1)))


@EVERY_CALL
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_serves_other_inputs(call: Callable[..., Tensor], mode: str) -> None:
    graph = make_fx(call, tracing_mode=mode)(*inputs(call, 0))
    torch.testing.assert_close(graph(*inputs(call, 1)), call(*inputs(call, 1)))


@EVERY_CALL
def test_fake_tensors_have_shapes_and_no_memory(call: Callable[..., Tensor]) -> None:
    given = inputs(call, 0)
    with FakeTensorMode() as mode:
        made = call(*map(mode.from_tensor, given))
    assert made.shape == call(*given).shape


@needs_kernels
def test_the_kernels_refuse_what_they_would_misread() -> None:
    how = How("affine", (4, 5), "bilinear", "zeros", 0.0, False)
    image, theta = inputs(warped, 0)
    for picture, source in ((image.bfloat16(), theta.bfloat16()), (image, theta.double()), (image.half(), theta)):
        with pytest.raises(TypeError, match="float32 or float64"):
            forward(picture, source, None, how)


def test_a_batch_of_no_maps_reads_nothing() -> None:
    """Of one image, which serves any batch: none, too."""
    for theta in (torch.zeros(0, 2, 3), torch.zeros(0, 2, 3, requires_grad=True)):
        image = torch.rand(1, 3, 6, 7, requires_grad=theta.requires_grad)
        made = warped(image, theta)
        assert made.shape == (0, 3, 4, 5)
        if theta.requires_grad:
            made.sum().backward()
            assert image.grad is not None
            assert not image.grad.any()


def test_an_inverse_by_iteration_refuses_export_with_its_reason() -> None:
    bend = ThinPlateSpline(3)

    class Back(torch.nn.Module):
        def forward(self, image: Tensor, theta: Tensor) -> Tensor:
            return warp(image, bend(theta).inverse())

    image, theta = torch.rand(2, 1, 6, 6), thetas(bend, 2).float()
    assert torch.isfinite(Back()(image, theta)).all()
    with pytest.raises(NotImplementedError, match="inverse: this map has none in closed form"):
        torch.export.export(Back(), (image, theta))
