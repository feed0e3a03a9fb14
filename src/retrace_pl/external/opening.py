"""From what the user named to modules: every format in one place, and which access each of them allows."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from retrace_pl.data.paths import expand
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.answers import AnswerStore
from retrace_pl.external.archives import file_kind, refuse_pickle
from retrace_pl.external.black_box import BlackBox, python_callable
from retrace_pl.external.config import ModelSettings
from retrace_pl.external.dotted import import_named
from retrace_pl.external.endpoint import HttpEndpoint
from retrace_pl.external.exported import read_exported
from retrace_pl.external.given import module_identity
from retrace_pl.external.hugging_face import read_hugging_face
from retrace_pl.external.inputs import ModelInputs
from retrace_pl.external.state_dict import ModelClass, known_inputs, read_state_dict
from retrace_pl.external.torchscript import read_torchscript
from retrace_pl.pipeline.cache import file_hash
from retrace_pl.pipeline.run_folder import fingerprint
from retrace_pl.traces import Access

__all__ = ["ModelOpener", "OpenedModel"]


@dataclass(frozen=True)
class OpenedModel:
    """A model that was found and can be run.

    Args:
        role: `original`, `unlearned`, `reference`, `null` or `evaluator`.
        format: Name of its format, for people.
        module: Maps model inputs [n, ...] to class scores, on the CPU and in eval mode.
        access: The highest access that its format allows.
        inputs: What its file says about the records it takes; None where nobody can tell, not even of what kind.
        identity: Plain values that change with the model.
    """

    role: str
    format: str
    module: nn.Module
    access: Access
    inputs: ModelInputs | None
    identity: Mapping[str, Any]

    @property
    def option(self) -> str:
        """The command-line option that named it."""
        return f"--{self.role}"


class ModelOpener:
    """Opens the models of one run; black boxes that are named twice share their answers.

    Args:
        settings: What the user named.
        folder: Where answers of black boxes are kept.
        given: Role -> network that was handed over in Python.
    """

    def __init__(self, settings: ModelSettings, folder: Path, given: Mapping[str, nn.Module] | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.given = dict(given or {})
        self._boxes: dict[str, BlackBox] = {}
        self._endpoints: list[HttpEndpoint] = []

    @property
    def black_boxes(self) -> list[BlackBox]:
        """The black boxes that were opened."""
        return list(self._boxes.values())

    def close(self) -> None:
        """Closes connections and files of answers."""
        for endpoint in self._endpoints:
            endpoint.close()
        for box in self._boxes.values():
            box.store.close()

    def open(self, role: str) -> OpenedModel:
        """Opens the model of one role.

        Raises:
            InputError: It cannot be found, read, or is not safe to read; the message names the option.
        """
        name = self.settings.roles[role]
        if role in self.given:
            return self._module(role, self.given[role])
        if name.startswith("module:"):
            raise InputError(f"--{role}: {name} was handed over in Python; save it to a file and give that")
        if name.startswith(("http://", "https://")):
            return self._endpoint(role, name)
        if name.startswith("python:"):
            return self._callable(role, name)
        path = Path(expand(name, f"--{role}"))
        if path.is_dir():
            return self._hugging_face(role, path)
        if not path.is_file():
            raise InputError(
                f"--{role}: {path} does not exist; give a file, a Hugging Face folder, python:MODULE:FUNCTION or http://..."
            )
        return self._file(role, path)

    def _module(self, role: str, module: nn.Module) -> OpenedModel:
        model = copy.deepcopy(module).cpu().eval().requires_grad_(False)
        return OpenedModel(role, "PyTorch module", model, Access.WHITE, known_inputs(model), module_identity(model))

    def _file(self, role: str, path: Path) -> OpenedModel:
        option = f"--{role}"
        kind = file_kind(path, option)
        if kind == "pickle":
            raise refuse_pickle(path, option)
        identity: dict[str, Any] = {"format": kind, "hash": file_hash(path)}
        module: nn.Module
        inputs: ModelInputs
        if kind == "torch.export":
            module, inputs = read_exported(path, option)
        elif kind == "TorchScript":
            module, inputs = read_torchscript(path, option), ImageInput()
        else:
            if self.settings.model_class is None:
                raise InputError(
                    f"{option}: {path} holds weights alone; name the class they belong to with --model-class, for "
                    "example my_package.MyNet or small_cnn"
                )
            architecture = ModelClass(
                self.settings.model_class,
                self.settings.model_args,
                classes=self.settings.classes,
                channels=_channels(self.settings),
            )
            module, inputs = read_state_dict(path, option, architecture)
            source = inspect.getsourcefile(architecture.kind)
            identity |= {"class": architecture.path, "arguments": architecture.arguments, "code": _hash(source)}
        return OpenedModel(role, kind, module, Access.WHITE, inputs, identity)

    def _hugging_face(self, role: str, folder: Path) -> OpenedModel:
        module, inputs, access = read_hugging_face(folder, f"--{role}")
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
        identity = {"format": "Hugging Face", "hash": {file.name: file_hash(file) for file in files}}
        return OpenedModel(role, "Hugging Face", module, access, inputs, identity)

    def _endpoint(self, role: str, url: str) -> OpenedModel:
        endpoint = HttpEndpoint(url, self.settings.endpoint)
        self._endpoints.append(endpoint)
        identity = {"format": "endpoint", "url": url}
        box = self._box(identity, url, lambda store: BlackBox(url, endpoint, store, self.settings.endpoint.batch))
        return OpenedModel(role, "HTTP endpoint", box, Access.BLACK, None, identity)

    def _callable(self, role: str, name: str) -> OpenedModel:
        path = name.removeprefix("python:")
        function = import_named(path, f"--{role}")
        if not callable(function):
            raise InputError(f"--{role}: {path} is no function")
        source = getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None)
        identity = {"format": "Python callable", "name": path, "code": _hash(source)}
        ask = python_callable(function, path)
        box = self._box(identity, path, lambda store: BlackBox(path, ask, store, self.settings.endpoint.batch))
        return OpenedModel(role, "Python callable", box, Access.BLACK, None, identity)

    def _box(self, identity: Mapping[str, Any], name: str, make: Any) -> BlackBox:
        key = fingerprint(identity)
        if key not in self._boxes:
            self._boxes[key] = make(AnswerStore(self.folder / f"{key}.answers"))
        return self._boxes[key]


def _channels(settings: ModelSettings) -> int | None:
    return next((value for kind in settings.declared if (value := kind.options().get("--channels"))), None)


def _hash(source: str | None) -> str | None:
    return None if source is None or not Path(source).is_file() else file_hash(Path(source))
