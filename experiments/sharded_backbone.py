"""The frozen backbone in shards, one per process; what trains is whole in every process."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers.modeling_layers import GradientCheckpointingLayer

from common.errors import InputError
from experiments.watched_ddp import WatchedDDP
from lightning_modules.adapted_module import AdaptedModule
from lora.injection import replace_module
from lora.layers import AdaptedLinear
from lora.products.frozen_linear import FrozenLinear
from lora.products.stored_linear import StoredLinear


class ShardedBackbone(WatchedDDP):
    """FSDP2 (torch's `fully_shard`) over each block of the frozen backbone, and one sum of all gradients per pass.

    A block is whole in a process while it computes. Adapter, allocation weights and head stay outside of the shards:
    each process has them, their gradients are averaged as under DDP, and checkpoints hold the same as ever.
    """

    def setup(self, trainer: Trainer) -> None:
        """As DDP's, but shards before anything is moved to the device, and wraps nothing."""
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        module: Any = self.model
        if module.sees_padding:
            raise InputError(
                f"trainer.strategy is fsdp, but rows of different length go through {module.backbone_name} apart, so "
                "that processes would wait for each other; allowed: --trainer.strategy ddp."
            )
        if not isinstance(module.model, FSDPModule):
            shard(module.model, self.root_device.type)
            module.adapter.join_layers(module.model)  # none, so that nothing holds the whole layers any more
        self.model_to_device()
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            if not isinstance(tensor, DTensor):
                distributed.broadcast(tensor.data, 0)  # factors, say, can differ from machine to machine
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def post_backward(self, closure_loss: Tensor) -> None:
        """Averages the gradients over the processes: what earlier passes of a step have averaged stays as it is."""
        assert self.model is not None
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        together = parameters_to_vector(gradients)
        distributed.all_reduce(together)
        vector_to_parameters(together / self.world_size, gradients)


def shard(model: nn.Module, device_type: str) -> None:
    """Shards the frozen parameters of a model over all processes, in place."""
    for name, module in list(model.named_modules()):
        # prepared products would be whole copies
        if isinstance(module, FrozenLinear):
            replace_module(model, name, StoredLinear(module, "float32"))
        elif isinstance(module, AdaptedLinear) and not isinstance(module.base, StoredLinear):
            module.base = StoredLinear(module.base, "float32")
    mesh = init_device_mesh(device_type, (distributed.get_world_size(),))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*reversed(blocks), model):
        fully_shard(module, mesh=mesh, ignored_params=trained)


def check_sharding(trainer: Trainer, module: AdaptedModule) -> None:
    """Refuses to shard for one process, a backbone that trains, or a compiled step."""
    if not isinstance(trainer.strategy, ShardedBackbone):
        return
    if trainer.world_size == 1:
        raise InputError(
            "trainer.strategy is fsdp and there is one process; allowed: two or more. Set --trainer.devices, or "
            "--trainer.strategy auto."
        )
    if module.adapter is None:
        raise InputError(
            "trainer.strategy is fsdp and model.adapter is null (full fine-tuning); allowed: an adapter, under which "
            "the backbone is frozen. Set --model.adapter, or use --trainer.strategy ddp."
        )
    if module.compiles or module.captures:
        raise InputError(
            "trainer.strategy is fsdp with model.compile or model.cuda_graphs, which weren't tried together; allowed: "
            "either. Leave one of them out."
        )
