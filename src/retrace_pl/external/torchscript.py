"""TorchScript archives, checked before `torch.jit.load` sees them.

What `torch.jit.load` does with a file, read in the source of torch 2.14: the pickles inside are read by an unpickler
of its own in C++, which builds tensors and TorchScript objects and never runs Python. The archive's ``code/`` is
TorchScript, which can do less than Python, but not nothing: ``torch.save`` and ``torch.from_file`` write files,
operators of other libraries (``ops.image.write_file``) as well, and a class's ``__setstate__`` runs while it is
loaded. torch's own documentation therefore warns of untrusted archives. Here the pickles' opcodes are looked at
without executing them, the code is searched for such calls, and what passes is copied record by record, so that the
C++ reader sees what was checked.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from retrace_pl.data.paths import one_line
from retrace_pl.errors import InputError
from retrace_pl.external.archives import Archive

__all__ = ["read_torchscript"]

_KEPT = re.compile(r"(data|constants)(/\d+|\.pkl)|code/[\w./]+\.py|(\.data/)?version|byteorder")
"""Records that are needed; debugging information, traced inputs and extra files are left out."""

_GLOBALS = re.compile(
    r"__torch__(\.[\w.]+)? \w+|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|collections OrderedDict"
    r"|torch\.jit\._pickle [\w]+|torch(\.\w+)? (float|double|half|long|int|bool|device|uint8|int8|int16|bfloat16)"
)
"""What a pickle of an archive may name: its own TorchScript classes, and what tensors and lists are made of."""

_CALLS = re.compile(r"\.(save|load|from_file)\b|(?<![\w.])ops\.(?!prim\.)\w+|torch\.classes|\bfork\(|__setstate__")
"""TorchScript that reads or writes files, leaves torch's own operators, or runs while the archive is loaded."""


def read_torchscript(path: Path, option: str) -> nn.Module:
    """Reads a TorchScript archive onto the CPU, in eval mode.

    Args:
        path: The file.
        option: The command-line option that named it, for messages.

    Raises:
        InputError: The archive is damaged, or holds something that is not safe.
    """
    copy = io.BytesIO()
    with Archive(path, option) as archive, zipfile.ZipFile(copy, "w") as checked:
        for name in archive.names:
            if _KEPT.fullmatch(name):
                content = archive.read(name)
                _check(name, content, f"{option}: {path}")
                checked.writestr(f"{archive.root}/{name}", content)
    copy.seek(0)
    try:
        with warnings.catch_warnings():
            # torch.export is the successor; archives that exist are still worth an audit.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.load.*")
            module: nn.Module = torch.jit.load(copy, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{option}: {path} cannot be read as TorchScript: {one_line(error)}") from error
    if hasattr(module, "training"):
        module.eval()
    return module


def _check(name: str, content: bytes, where: str) -> None:
    if name.endswith(".pkl"):
        found = next((used for used in _globals(content, where) if not _GLOBALS.fullmatch(used)), None)
        if found is not None:
            raise InputError(f"{where} cannot be used: its {name} names {found}, which no TorchScript archive needs")
    elif name.endswith(".py"):
        source = re.sub(r"#[^\n]*|\\\n|\s*(\.)\s*", r"\1", content.decode("utf-8", errors="replace"))
        call = _CALLS.search(source)
        if call is not None:
            raise InputError(
                f"{where} cannot be used: its code has {call[0].strip()!r}, which is not run from a file; "
                "torch.export is the safer format"
            )


def _globals(content: bytes, where: str) -> list[str]:
    """What a pickle would import, read from its opcodes; nothing is executed."""
    try:
        opcodes = list(pickletools.genops(content))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{where} is damaged: {one_line(error)}") from error
    if any(code.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4") for code, _, _ in opcodes):
        raise InputError(f"{where} cannot be used: its pickles are not those of TorchScript")
    return [str(argument) for code, argument, _ in opcodes if code.name == "GLOBAL"]
