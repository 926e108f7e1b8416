"""A few numbers that tell frozen tensors apart: a backbone's weights, or the factors an adapter was trained between.

Each tensor, or direction of a factor, counts at unit length, multiplied by fixed vectors, with the logarithm of its
length beside it. So a small one is seen beside a large one, and one that was flipped, swapped, rotated or scaled is
noticed; rounding is not.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

COPIED = 1e-6  # tolerance between tensors read from the same file
MADE_AGAIN = 1e-2  # between those made from the same weights: singular vectors differ from machine to machine
_AT_ONCE = 1 << 18  # entries that are taken to double precision together


def sketch(tensors: Iterable[Tensor]) -> Tensor:
    """(n, 2), float32 on the CPU: product and log length of each tensor."""
    rows = [_of_matrix(tensor) for tensor in tensors]
    return torch.stack(rows).float() if rows else torch.zeros(0, 2)


def sketch_parameters(parameters: dict[str, Tensor]) -> Tensor:
    """`sketch` of named tensors, in the order of their names."""
    return sketch(parameters[name] for name in sorted(parameters))


def sketch_factors(factors: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """(N, 3 · rank), float32 on the CPU: products of A's rows and of B's columns, and the rows' log lengths.

    Of N pairs A (rank, in) and B (out, rank), the columns of B of unit length.
    """
    return torch.stack([_of_factors(A.detach().cpu().double(), B.detach().cpu().double()) for A, B in factors]).float()


def same_sketch(ours: Tensor, theirs: Tensor, tolerance: float = COPIED) -> bool:
    """Whether two sketches belong to the same tensors, to the tolerance `COPIED` or `MADE_AGAIN`."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-6, atol=tolerance)


def _of_matrix(tensor: Tensor) -> Tensor:
    if tensor.is_meta:  # a skeleton's: it has no values
        return torch.zeros(2)
    matrix = tensor.detach().cpu()
    matrix = matrix.reshape(len(matrix) if matrix.ndim else 1, -1)
    right = _fixed_vector(matrix.shape[1])
    parts = matrix.split(max(1, _AT_ONCE // max(1, matrix.shape[1])))
    cells = torch.empty_like(parts[0], dtype=torch.float64)
    products, squares = [], []
    for part in parts:  # a large matrix in double precision would be slow to make
        wide = cells[: len(part)].copy_(part)
        products.append(wide @ right)
        squares.append(wide.flatten() @ wide.flatten())
    length = torch.stack(squares).sum().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.stack([_fixed_vector(len(matrix)) @ torch.cat(products) / length, length.log()])


def _of_factors(A: Tensor, B: Tensor) -> Tensor:
    lengths = A.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)  # (rank,)
    return torch.cat([A @ _fixed_vector(A.shape[1]) / lengths, _fixed_vector(len(B)) @ B, lengths.log()])


def _fixed_vector(length: int) -> Tensor:
    """(length,), float64: incommensurate with any pattern in weights, and the same on every machine."""
    return torch.cos(torch.arange(1, length + 1, dtype=torch.float64) * 1.6180339887) + 0.5
