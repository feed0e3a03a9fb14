"""The blocks of a model in the order in which data passes them: what "the last k" of CF-k and EU-k counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.unlearning.gradients import evaluating

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Block = tuple[str, ...]
"""The names of the modules of one block: a layer or residual block, and the normalisation that belongs to it."""


def find_blocks(model: nn.Module, inputs: Tensor) -> list[Block]:
    """Splits a model into blocks, in the order in which `inputs` pass them.

    From the model downwards, a module is taken apart while it is a container (`Sequential` and the like) or of a class
    that the model has only once (a backbone); what is left are single layers and repeated blocks such as the residual
    blocks of a ResNet or the layers of a transformer. A part whose parameters are all vectors, in practice a
    normalisation layer, belongs to the part before it. Parts that `inputs` do not reach are in no block, and neither
    are parameters that a module holds directly beside its children.

    So each convolution or linear layer of `SmallCNN` and `VGG16BN` is a block; `ResNetCIFAR` of depth 8 has the stem,
    three residual blocks and the head.

    Args:
        model: The model; left in the mode and with the statistics it has.
        inputs: A few inputs of the model.

    Returns:
        The blocks, first to last.
    """
    parts = dict(_parts("", model, Counter(type(module) for module in model.modules())))
    order: dict[str, int] = {}
    calls = 0

    def record(name: str) -> Any:
        def hook(*_: Any) -> None:
            nonlocal calls
            calls += 1
            order[name] = calls  # the last call counts where a part is used several times

        return hook

    handles = [part.register_forward_hook(record(name)) for name, part in parts.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()

    blocks: list[Block] = []
    vectors: Block = ()  # normalisation before the first layer goes with that layer
    for name in sorted(order, key=order.__getitem__):
        if any(parameter.ndim > 1 for parameter in parts[name].parameters()):
            blocks.append((*vectors, name))
            vectors = ()
        elif blocks:
            blocks[-1] = (*blocks[-1], name)
        else:
            vectors = (*vectors, name)
    return [*blocks, vectors] if vectors else blocks


def modules_of(model: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """The modules of these names and everything inside them."""
    return [module for name in names for module in model.get_submodule(name).modules()]


@contextmanager
def training_only(parameters: Iterable[nn.Parameter], model: nn.Module) -> Iterator[None]:
    """Lets no parameter but these require gradients or have one, for the time of the block.

    An optimiser skips a parameter without a gradient altogether: momentum and weight decay do not move it either.

    Args:
        parameters: Those that learn.
        model: The model they belong to.
    """
    learning = {id(parameter) for parameter in parameters}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in learning]
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _parts(name: str, module: nn.Module, count: Counter[type[nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """The layers and repeated blocks of a module that hold parameters or statistics, in order of registration."""
    if not _has_state(module):
        return
    inner = [(child, part) for child, part in module.named_children() if _has_state(part)]
    whole = not isinstance(module, _CONTAINERS) and count[type(module)] > 1
    if not inner or whole:
        yield name, module
        return
    for child, part in inner:
        yield from _parts(f"{name}.{child}" if name else child, part, count)


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None
