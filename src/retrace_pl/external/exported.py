"""torch.export archives (``.pt2``), run without `torch.export.load`.

`torch.export.load` is no safe way to open a file from somebody else; read in the source of torch 2.14:

* Sample inputs, tensor subclasses and opaque constants are pickles. ``torch/_export/serde/serialize.py`` tries
  ``torch.load(weights_only=True)`` and, where that refuses, loads the same bytes again with ``weights_only=False``;
  ``torch/export/pt2_archive/_package.py`` calls ``pickle.loads`` and ``torch.load(weights_only=False)`` outright.
* Sizes are texts such as ``Symbol('s0', integer=True)`` that `sympy.sympify` evaluates as Python.
* A node may name any function that is reachable from the module ``torch`` (``torch.os.system`` is one), a tree
  specification any module to import, and ``guards_code`` is Python that is executed with the first call.

So the graph is read as what it is, JSON beside raw arrays, and interpreted here: only operators of torch's own ``aten``
library run, none that touches files, and nothing else in the archive is looked at. The arithmetic is that of the
exported program to the last bit, gradients included.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.archives import Archive
from retrace_pl.external.exported_graph import CurrentDevice, ExportedGraph, Name, Step, names_in

__all__ = ["read_exported"]

SCHEMA = 8
"""Major version of the archives' schema; torch 2.9 to 2.14 write it."""

_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_STRIDED = 7
_PYTHON = {
    name: getattr(operator, name)
    for name in (
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "getitem",
    )
}  # arithmetic of sizes
_PLAIN = frozenset({"as_int", "as_ints", "as_bool", "as_bools", "as_string"})
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_NO_OPERATOR = frozenset({"save", "load", "from_file", "warn", "_print"})


def read_exported(path: Path, option: str) -> tuple[ExportedGraph, ImageInput]:
    """Reads a torch.export archive and nothing but its graph and its arrays.

    Args:
        path: The ``.pt2`` file.
        option: The command-line option that named it, for messages.

    Returns:
        The module on the CPU, in eval mode, and the images it takes.

    Raises:
        InputError: The archive is damaged, holds something that is not safe, or the model does not map one tensor of
            images to class scores.
    """
    try:
        with Archive(path, option) as archive:
            reader = _Reader(archive)
            return reader.module(), reader.images
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"{option}: {path} has another layout than archives of torch.export (schema {SCHEMA}); export the model "
            f"again with the torch that is installed here ({type(error).__name__}: {error})"
        ) from error


class _Reader:
    """Turns the JSON of an archive into steps and tensors."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.images = ImageInput()

    def module(self) -> ExportedGraph:
        programs = sorted(name for name in self.archive.names if re.fullmatch(r"models/[\w.-]+\.json", name))
        if len(programs) != 1:
            raise self._refused(f"it holds {len(programs)} exported programs, and one is expected")
        name = programs[0].removeprefix("models/").removesuffix(".json")
        program = self._json(programs[0])
        if program["schema_version"]["major"] != SCHEMA:
            raise self._refused(f"its schema is version {program['schema_version']['major']}, not {SCHEMA}")
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        weights = self._tensors(name, "weights")
        constants = self._tensors(name, "constants")
        image, parameters = self._inputs(signature, weights, constants)
        results = [self._result(spec) for spec in signature["output_specs"]]
        batch = self._image_shape(graph["tensor_values"][image])
        steps = self._steps(graph["nodes"], {*results})
        return ExportedGraph(steps, parameters, image, results, batch).eval()

    # --- Arrays -----------------------------------------------------------------------------------------------------

    def _tensors(self, model: str, kind: str) -> dict[str, Tensor]:
        config = self._json(f"data/{kind}/{model}_{kind}_config.json")["config"]
        blocks: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        shared: dict[str, Tensor] = {}
        for name, payload in config.items():
            meta, file = payload["tensor_meta"], payload["path_name"]
            if payload["use_pickle"] or meta is None:
                raise self._refused(f"{name} is stored as a pickle, which could run any code; make it a plain tensor")
            key = json.dumps([file, meta], sort_keys=True)
            if key not in shared:
                if file not in blocks:
                    blocks[file] = self._block(f"data/{kind}/{file}", meta)
                tensor = self._strided(blocks[file], meta, name)
                shared[key] = nn.Parameter(tensor, requires_grad=False) if payload["is_param"] else tensor
            found[name] = shared[key]
        return found

    def _block(self, record: str, meta: Mapping[str, Any]) -> Tensor:
        content = self.archive.read(record)
        dtype = self._dtype(meta["dtype"])
        return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)

    def _strided(self, block: Tensor, meta: Mapping[str, Any], name: str) -> Tensor:
        if meta["layout"] != _STRIDED:
            raise self._refused(f"{name} is a sparse tensor; make it a dense one")
        size, stride = ([int(item["as_int"]) for item in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if min([offset, *size, *stride]) < 0 or (math.prod(size) > 0 and reach > len(block)):
            raise self._refused(f"{name} reaches beyond its array")
        return torch.as_strided(block, size, stride, offset).clone()

    # --- Inputs and outputs -----------------------------------------------------------------------------------------

    def _inputs(
        self, signature: Mapping[str, Any], weights: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> tuple[str, dict[str, Tensor]]:
        images, parameters = [], {}
        for spec in signature["input_specs"]:
            ((kind, value),) = spec.items()
            if kind == "user_input":
                if "as_tensor" in value["arg"]:
                    images.append(value["arg"]["as_tensor"]["name"])
                elif "as_none" not in value["arg"]:
                    raise self._refused("it takes more than one tensor; export a model that takes the images alone")
            elif kind in ("parameter", "buffer", "tensor_constant"):
                key = value[f"{kind}_name"]
                parameters[value["arg"]["name"]] = weights[key] if key in weights else constants[key]
            elif kind != "constant_input":
                raise self._refused(f"it has an input of kind {kind}; export a model that takes the images alone")
        if len(images) != 1:
            raise self._refused(f"it takes {len(images)} tensors; export a model that takes the images alone")
        return images[0], parameters

    def _result(self, spec: Mapping[str, Any]) -> str:
        if "user_output" not in spec or "as_tensor" not in spec["user_output"]["arg"]:
            raise self._refused(f"it changes its own state ({', '.join(spec)}); call model.eval() before the export")
        return str(spec["user_output"]["arg"]["as_tensor"]["name"])

    def _image_shape(self, meta: Mapping[str, Any]) -> int | None:
        sizes = [size.get("as_int") for size in meta["sizes"]]
        if len(sizes) != 4:
            raise self._refused(f"its input has {len(sizes)} dimensions, and images [n, C, S, S] are expected")
        batch, channels, height, width = sizes
        if height != width:
            raise self._refused(f"it takes images of {height}x{width} pixels, and square ones are expected")
        self.images = ImageInput(image_size=height, channels=channels)
        return None if batch is None else int(batch)

    # --- The program ------------------------------------------------------------------------------------------------

    def _steps(self, nodes: list[Mapping[str, Any]], kept: set[str]) -> list[Step]:
        """The operator calls; read backwards, so that the last use of every value is known."""
        steps: list[Step] = []
        needed = set(kept)
        for node in reversed(nodes):
            target = str(node["target"])
            if target.startswith("torch.ops.aten._assert_") or target.startswith("torch.ops.aten.sym_constrain"):
                continue  # checks of sizes and devices, which another device fails for no reason
            call = self._operator(target)
            arguments = {str(item["name"]): self._argument(item["arg"], target) for item in node["inputs"]}
            self._check_inference(target, arguments)
            outputs = tuple(self._output(output, target, needed) for output in node["outputs"])
            used = set(names_in(list(arguments.values())))
            last = tuple(sorted(used - needed))
            needed |= used
            python = target.startswith("_operator.")
            steps.append(
                Step(call, tuple(arguments.values()) if python else (), {} if python else arguments, outputs, last)
            )
        return steps[::-1]

    def _operator(self, target: str) -> Callable[..., Any]:
        if target.startswith("_operator.") and target.removeprefix("_operator.") in _PYTHON:
            call: Callable[..., Any] = _PYTHON[target.removeprefix("_operator.")]
            return call
        matched = _ATEN.fullmatch(target)
        packet = getattr(torch.ops.aten, matched[1], None) if matched and matched[1] not in _NO_OPERATOR else None
        overload = getattr(packet, matched[2], None) if matched and packet is not None else None
        if overload is None or any("file" in argument.name for argument in overload._schema.arguments):
            raise self._refused(f"it calls {target}, which is not among the operators that are run from a file")
        found: Callable[..., Any] = overload
        return found

    def _check_inference(self, target: str, arguments: Mapping[str, Any]) -> None:
        if any(arguments.get(name) is True for name in ("training", "train")):
            raise self._refused(f"{target} works in training mode; call model.eval() before the export")

    def _argument(self, argument: Mapping[str, Any], target: str) -> Any:
        ((kind, value),) = argument.items()
        if kind in _PLAIN:
            return value
        converters: dict[str, Callable[[Any], Any]] = {
            "as_none": lambda _: None,
            "as_float": float,  # infinity and NaN are texts in JSON
            "as_floats": lambda values: [float(value) for value in values],
            "as_tensor": lambda tensor: Name(tensor["name"]),
            "as_tensors": lambda tensors: [Name(tensor["name"]) for tensor in tensors],
            "as_optional_tensor": self._optional,
            "as_optional_tensors": lambda tensors: [self._optional(tensor) for tensor in tensors],
            "as_sym_int": self._symbol,
            "as_sym_ints": lambda symbols: [self._symbol(symbol) for symbol in symbols],
            "as_sym_float": self._symbol,
            "as_sym_bool": self._symbol,
            "as_scalar_type": self._dtype,
            "as_memory_format": lambda code: _MEMORY[code],
            "as_layout": self._layout,
            "as_device": lambda _: CurrentDevice(),
        }
        if kind not in converters:
            raise self._refused(f"{target} has an argument of kind {kind}, which is not supported")
        return converters[kind](value)

    def _output(self, output: Mapping[str, Any], target: str, needed: Collection[str]) -> Any:
        """Name of a result, or None where no later step needs it."""
        value = self._argument(output, target)
        if isinstance(value, list):
            return tuple(item.name if isinstance(item, Name) and item.name in needed else None for item in value)
        return value.name if isinstance(value, Name) and value.name in needed else None

    @staticmethod
    def _optional(tensor: Mapping[str, Any]) -> Any:
        return Name(tensor["as_tensor"]["name"]) if "as_tensor" in tensor else None

    @staticmethod
    def _symbol(symbol: Mapping[str, Any]) -> Any:
        ((kind, value),) = symbol.items()
        return Name(value) if kind == "as_name" else float(value) if kind == "as_float" else value

    def _layout(self, code: int) -> torch.layout:
        if code != _STRIDED:
            raise self._refused("it works on sparse tensors, which is not supported")
        return torch.strided

    def _dtype(self, code: int) -> torch.dtype:
        if code not in _DTYPES:
            raise self._refused(f"it holds numbers of type {code}, which is not supported")
        return _DTYPES[code]

    # --- Records ----------------------------------------------------------------------------------------------------

    def _json(self, name: str) -> Any:
        return json.loads(self.archive.read(name))

    def _refused(self, why: str) -> InputError:
        return InputError(f"{self.archive.option}: {self.archive.path} cannot be used: {why}")
