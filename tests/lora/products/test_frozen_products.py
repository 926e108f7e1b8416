"""Prepared products against dense matrices in float64, in every type and with both kinds of copies."""

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from lora.products import frozen_products
from lora.products.frozen_products import CastProducts, FoldedCore, KeptProducts, PackedProducts, product_type
from lora.products.torch_internals import can_pack

TOKENS, IN, OUT, RANK = 7, 12, 20, 4
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
KINDS = [(kind, dtype) for kind in (CastProducts, PackedProducts) for dtype in TOLERANCES]


def made(dtype, kind, bias=True, adapted=True):
    if kind is PackedProducts and not can_pack(dtype):
        pytest.skip(f"no packed products in {dtype} here")
    frozen = [torch.randn(OUT, IN), torch.randn(OUT) if bias else None]
    frozen += [torch.randn(RANK, IN), torch.randn(OUT, RANK)] if adapted else []
    exact = [None if tensor is None else tensor.to(dtype).double() for tensor in frozen]
    return kind(dtype, *frozen), exact


def assert_near(found, exact, dtype):
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5 * TOLERANCES[dtype] * float(exact.abs().max()))


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_dense_ones(kind, dtype, bias):
    x, gradient, core = (torch.randn(shape).to(dtype) for shape in ((TOKENS, IN), (TOKENS, OUT), (RANK, RANK)))
    products, (weight, offset) = made(dtype, kind, bias, adapted=False)
    assert_near(products.frozen(x), x.double() @ weight.T + (offset if bias else 0), dtype)
    assert_near(products.frozen_back(gradient), gradient.double() @ weight, dtype)
    products, (weight, offset, A, B) = made(dtype, kind, bias)
    y, reduced = products.adapted(x, core)
    adapted = weight + B @ core.double() @ A
    assert_near(y, x.double() @ adapted.T + (offset if bias else 0), dtype)
    assert_near(reduced, x.double() @ A.T, dtype)
    towards_x, towards_core = products.adapted_back(gradient, core)
    assert_near(towards_x, gradient.double() @ adapted, dtype)
    assert_near(towards_core, gradient.double() @ B, dtype)
    assert y.is_contiguous() and y.dtype == reduced.dtype == towards_x.dtype == towards_core.dtype == dtype
    assert products.adapted_back(gradient, core, towards_x=False)[0] is None


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keeps_outputs", [True, False])
def test_a_core_that_is_folded_into_its_factors_gives_the_same(dtype, bias, keeps_outputs):
    x, gradient, core = (torch.randn(shape).to(dtype) for shape in ((TOKENS, IN), (TOKENS, OUT), (RANK, RANK)))
    frozen = [torch.randn(OUT, IN), torch.randn(OUT) if bias else None, torch.randn(RANK, IN), torch.randn(OUT, RANK)]
    weight, offset, A, B = (torch.zeros(()) if tensor is None else tensor.to(dtype) for tensor in frozen)
    products = CastProducts(dtype, *frozen)
    products.keeps_outputs = keeps_outputs
    exact = weight.double() + B.double() @ core.double() @ A.double()
    folded = FoldedCore(B @ core, core @ A)
    y, reduced = products.adapted(x, core, folded)
    assert_near(y, x.double() @ exact.T + offset.double(), dtype)
    assert_near(reduced, x.double() @ A.double().T, dtype)
    assert (y.untyped_storage().data_ptr() == reduced.untyped_storage().data_ptr()) is keeps_outputs
    towards_x, towards_core = products.adapted_back(gradient, core, folded)
    assert_near(towards_x, gradient.double() @ exact, dtype)
    assert_near(towards_core, gradient.double() @ B.double(), dtype)


def test_products_are_prepared_once_and_again_when_a_tensor_or_the_type_changes():
    weight, bias, kept = torch.randn(OUT, IN), torch.randn(OUT), KeptProducts()
    first = kept.of(torch.bfloat16, weight, bias)
    assert kept.of(torch.bfloat16, weight, bias) is first
    other_type = kept.of(torch.float16, weight, bias)
    assert other_type is not first and other_type.bias.dtype == torch.float16
    weight.mul_(2)
    doubled = kept.of(torch.float16, weight, bias)
    x = torch.randn(TOKENS, IN).half()
    assert doubled is not other_type
    assert_near(doubled.frozen(x), x.double() @ weight.half().double().T + bias.half(), torch.float16)
    assert kept.of(torch.float16, weight, bias.clone()) is not doubled


def test_what_cannot_be_packed_is_cast(monkeypatch):
    weight = torch.randn(OUT, IN)
    monkeypatch.setattr(frozen_products, "LARGEST_PACKED_WEIGHT", OUT * IN - 1)
    assert isinstance(KeptProducts().of(torch.bfloat16, weight, None), CastProducts)
    monkeypatch.setattr(frozen_products, "LARGEST_PACKED_WEIGHT", OUT * IN)
    monkeypatch.setattr(frozen_products, "can_pack", lambda dtype: dtype == torch.float32)
    assert isinstance(KeptProducts().of(torch.bfloat16, weight, None), CastProducts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_a_product_has_its_type(dtype):
    weight = torch.randn(OUT, IN)
    with torch.autocast("cpu", dtype):
        assert product_type(torch.randn(TOKENS, IN), weight) == dtype
        assert product_type(torch.randn(TOKENS, IN).to(dtype), weight) == dtype
        assert product_type(torch.randn(TOKENS, IN).double(), weight) is None
        assert product_type(torch.randn(0, IN), weight) is None
        assert product_type(torch.randn(TOKENS, IN), weight.double()) is None
        assert product_type(torch.randn(TOKENS, IN), torch.nn.Parameter(weight)) is None
        assert product_type(torch.randn(TOKENS, IN), weight.to("meta")) is None


@pytest.mark.skipif(not can_pack(torch.float32), reason="this build of PyTorch has no packed products")
def test_without_autocast_only_packed_float32_is_prepared(monkeypatch):
    weight, x = torch.randn(OUT, IN), torch.randn(TOKENS, IN)
    assert product_type(x, weight) == product_type(x, Conv1D(OUT, IN).requires_grad_(False).weight.T) == torch.float32
    assert product_type(x.bfloat16(), weight) is product_type(x.bfloat16(), weight.bfloat16()) is None
    monkeypatch.setattr(frozen_products, "LARGEST_PACKED_WEIGHT", OUT * IN - 1)
    assert product_type(x, weight) is None
