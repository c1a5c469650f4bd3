"""T_theta = M_theta B: the general family of the paper, linear in theta over any basis B of the output points."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from threading import Lock

import torch
from torch import Tensor, nn

from torch_stn import _checks, lowered
from torch_stn.coordinates import base_grid
from torch_stn.transforms.base import Transform

_CACHED_SIZES = 8
_CACHED_BYTES = 1 << 28
_KEEPING = Lock()  # threads that serve one model keep its values too
_PROBE = torch.tensor([[-0.9, -0.7, 0.3], [0.2, 0.8, -0.4], [0.6, -0.3, 0.9], [0.0, 0.0, 0.0], [-0.5, 0.4, 0.1]])


class BasisTransform(Transform):
    """A family that is linear in theta (N, K, d): a subclass gives ``functions(xy)``, B at any points."""

    def __init__(self, identity: Tensor) -> None:
        super().__init__()
        self.dims = identity.shape[1]
        self.theta_shape = (identity.shape[0], self.dims)
        self.identity_theta: Tensor
        self.register_buffer("identity_theta", identity.detach().clone(), persistent=False)

    @abstractmethod
    def functions(self, xy: Tensor) -> Tensor:
        """B(xy): (..., d) -> (..., K)."""
        raise NotImplementedError(f"{type(self).__name__}.functions")

    def functions_on(
        self, size: tuple[int, ...], align_corners: bool, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """B at every pixel centre of an output of ``size``: (*size, K)."""
        return self.functions(base_grid(size, align_corners=align_corners, dtype=dtype, device=device))

    def identity(self) -> Tensor:
        return self.identity_theta.float()

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        with torch.autocast(theta.device.type, enabled=False):
            return torch.matmul(self.functions(xy).to(theta.dtype), self._coefficients(theta))

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        with torch.autocast(theta.device.type, enabled=False):
            values = self.functions_on(tuple(size), align_corners, theta.dtype, theta.device)
        return lowered.Basis(values, self._coefficients(theta))

    def _coefficients(self, theta: Tensor) -> Tensor:
        return theta - self.identity_theta.to(theta.dtype)


class ConstantBasis(BasisTransform):
    """A family whose B never changes: the values on the pixels of the last few sizes are kept, up to 256 MiB of them,
    computed in float64; copies and pickles go without.
    """

    def __init__(self, identity: Tensor) -> None:
        super().__init__(identity)
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}}

    def functions_on(
        self, size: tuple[int, ...], align_corners: bool, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        # A constant of (size, control points), computed once; but a compiled graph must not depend on a Python cache.
        if torch.compiler.is_compiling():
            return super().functions_on(size, align_corners, torch.float64, device).to(dtype)
        key = (size, align_corners, dtype, device)
        values = self._cache.get(key)
        if values is None:
            # Made outside inference mode, so that what evaluation kept can serve training.
            with torch.inference_mode(False), torch.no_grad():
                made = super().functions_on(size, align_corners, torch.float64, device).to(dtype)
                # One function's values after another's, as kernels read them: for each call a copy less.
                made = made.movedim(-1, 0).contiguous().movedim(0, -1)
            if type(made) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(made):
                return made  # of a vmap or a shape run: it must not outlive that
            if made.nbytes > _CACHED_BYTES:
                return made
            with _KEEPING:
                kept = sum(old.nbytes for old in self._cache.values())
                while self._cache and (len(self._cache) >= _CACHED_SIZES or kept + made.nbytes > _CACHED_BYTES):
                    kept -= self._cache.pop(next(iter(self._cache))).nbytes
                self._cache[key] = values = made
        return values


class Basis(BasisTransform):
    """T_theta(xy) = theta^T B(xy), theta (N, K, d), with ``basis(xy)``: (..., d) -> (..., K).

    ``identity`` (K, d) is the theta for which theta^T B(xy) = xy. B may be an nn.Module with parameters, hence learned
    (paper 3.2: "B could itself be learned for the task"); gradients reach it.

    Raises: ValueError where B has another number of functions than ``identity`` has rows, or identity^T B(xy) is not
    xy.

    Example: the affine family once more, as M_theta B with B = (x, y, 1).
        >>> def homogeneous(xy):
        ...     return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        >>> family = Basis(homogeneous, torch.eye(3, 2))
        >>> family.num_params
        6
        >>> family(torch.eye(3, 2)[None] * 0.5).sources(torch.ones(1, 1, 2)).tolist()
        [[[0.5, 0.5]]]
    """

    def __init__(self, basis: Callable[[Tensor], Tensor] | nn.Module, identity: Tensor) -> None:
        if not callable(basis):
            raise TypeError(f"basis: wanted a function or nn.Module of points, got {basis!r}")
        if _checks.tensor("identity", identity).dim() != 2 or identity.shape[1] not in (2, 3):
            raise ValueError(f"identity: wanted (K, 2) or (K, 3), got {_checks.describe(identity)}")
        super().__init__(identity)
        self.basis = basis
        self._check_identity()

    def functions(self, xy: Tensor) -> Tensor:
        if not isinstance(self.basis, nn.Module):
            return self.basis(xy)
        # A learned B follows its model to half precision; its values are computed in the precision of the coordinates.
        state = {**dict(self.basis.named_parameters()), **dict(self.basis.named_buffers())}
        state = {name: value.to(xy.dtype) if value.is_floating_point() else value for name, value in state.items()}
        return torch.func.functional_call(self.basis, state, (xy,))

    def _check_identity(self) -> None:
        """A wrong identity would move every picture from the first step on, without any other sign."""
        probe = _PROBE[:, : self.dims].to(self.identity_theta)
        with torch.no_grad():
            values = self.functions(probe).to(probe.dtype)
        if values.shape != (len(probe), self.theta_shape[0]):
            wanted = f"(..., {self.theta_shape[0]}) as identity has {self.theta_shape[0]} rows"
            raise ValueError(
                f"basis: wanted values {wanted}, got {tuple(values.shape)} for points {tuple(probe.shape)}"
            )
        error = (values @ self.identity_theta - probe).abs().max().item()
        if error > 1e-4:
            raise ValueError(f"identity: identity^T B(xy) must be xy, it is off by {error:.3g}")
