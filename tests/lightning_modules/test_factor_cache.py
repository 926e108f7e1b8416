import pytest
import torch

from common.files import cache_directory
from lightning_modules import factor_cache
from lightning_modules.factor_cache import cached_factorise
from lora.factors import factorise


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """How often factors were worked out, with an empty cache."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    calls = []
    monkeypatch.setattr(factor_cache, "factorise", lambda *arguments: calls.append(arguments) or factorise(*arguments))
    return calls


def weights(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(10, 14, generator=generator), torch.randn(14, 10, generator=generator)]


def equal(ours, theirs) -> bool:
    return all(torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other))


def cache_files():
    return sorted(cache_directory("factors").iterdir())


def test_a_second_call_reads_what_the_first_worked_out(counted):
    first = cached_factorise(weights(), 4, "svd")
    second = cached_factorise(weights(), 4, "svd")
    assert len(counted) == 1
    assert len(cache_files()) == 1
    assert equal(first, second)
    assert equal(second, factorise(weights(), 4, "svd"))
    cached_factorise([weight.T.contiguous().T for weight in weights()], 4, "svd")  # a view counts as its matrix
    assert len(counted) == 1


def test_other_weights_ranks_or_rules_are_worked_out_anew(counted):
    cached_factorise(weights(), 4, "svd")
    one_entry = [weights()[0] + torch.eye(10, 14) * 1e-4, weights()[1]]
    others = [(other, 4, "svd") for other in (weights(seed=1), weights()[::-1], weights()[:1], one_entry)]
    for count, other in enumerate([*others, (weights(), 5, "svd"), (weights(), 4, "random")], start=2):
        assert equal(cached_factorise(*other), factorise(*other))
        assert len(counted) == len(cache_files()) == count


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit_of_the_factors(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 0x40]) + content[-8:]


@pytest.mark.parametrize("damage", [cut, lambda content: b"", lambda content: b"\xff" * 64, flip_a_bit_of_the_factors])
def test_a_damaged_file_is_made_again(counted, damage):
    whole = cached_factorise(weights(), 4, "svd")
    (path,) = cache_files()
    path.write_bytes(damage(path.read_bytes()))
    assert equal(cached_factorise(weights(), 4, "svd"), whole)
    assert len(counted) == 2
    cached_factorise(weights(), 4, "svd")
    assert len(counted) == 2
    assert cache_files() == [path]
