"""Dropout that draws a quarter of the random numbers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from lora.injection import replace_module

_VALUES = 2**16  # of the 16 bits that decide over one entry
_DRAWS_PER_NUMBER = 4  # 16-bit draws in one 64-bit random number


class SixteenBitDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) that decides with 16 random bits per entry, on the CPU.

    PyTorch draws one random number per entry there, one after another; this draws one per four entries. The rate is
    rounded to a multiple of 2⁻¹⁶ (0.1 becomes 0.100006), and what is kept is scaled by the rounded rate, so the
    expected output is exactly the input. On other devices, and compiled, it is PyTorch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        dropped = round(self.p * _VALUES)
        ordinary = self.inplace or x.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or ordinary or not 0 < dropped < _VALUES:
            return dropout(x, self.p, self.training, self.inplace)
        numbers = torch.empty(-(-x.numel() // _DRAWS_PER_NUMBER), dtype=torch.int64)
        draws = numbers.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)  # all 64 bits
        kept = draws >= dropped - _VALUES // 2
        return x * kept.to(x.dtype).mul_(_VALUES / (_VALUES - dropped))


def use_sixteen_bit_dropout(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            replace_module(model, name, SixteenBitDropout(module.p, module.inplace).train(module.training))
