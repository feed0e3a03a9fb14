"""Networks that were handed over in Python, without a file to know them by."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from retrace_pl.pipeline.code import class_hash

__all__ = ["module_identity"]


def module_identity(module: nn.Module) -> dict[str, Any]:
    """Plain values that change with a network: its weights, its structure, and the code of its own classes.

    Args:
        module: The network, on the CPU.
    """
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    kinds = {type(part) for part in module.modules()}
    code = {f"{kind.__module__}.{kind.__qualname__}": class_hash(kind) for kind in kinds}
    known = {name: found for name, found in sorted(code.items()) if found is not None}
    return {"format": "PyTorch module", "hash": digest.hexdigest(), "code": known}
