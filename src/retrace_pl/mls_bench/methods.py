"""What `--method` may name: a baseline, a method of the zoo, a file of the user's, or an object from Python."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from retrace_pl import unlearning
from retrace_pl.errors import InputError, RetraceError
from retrace_pl.mls_bench.baselines import BASELINES
from retrace_pl.mls_bench.settings import UNLEARNING, Limits
from retrace_pl.tasks.unlearning import is_number
from retrace_pl.unlearning import METHODS, Batch, UnlearningMethod

_CLASS = "UnlearningMethod"
_loaded = itertools.count()


@dataclass(frozen=True)
class Plug:
    """A method ready to run.

    Args:
        name: What tables and file names call it.
        method: The method, with the benchmark's recipe unless `own_settings`.
        source: Hash of the code behind it; None where it is not known, so that nothing may be reused.
        own_settings: Whether it runs with its own optimiser, epochs and batches.
        resumable: Whether it can continue at an epoch; a foreign object cannot, because nobody saves its state.
        file: The file it comes from, if any.
        packaged: Whether it was named, so that its seed follows that of the run; files and objects keep theirs.
    """

    name: str
    method: UnlearningMethod
    source: str | None
    own_settings: bool = False
    resumable: bool = True
    file: str | None = None
    packaged: bool = False


class ForeignMethod(UnlearningMethod):
    """An object that has nothing but the benchmark's `unlearn_step`, run with the benchmark's recipe.

    None of its other attributes is looked at, whatever they are called, and of what a step returns only the loss and
    further single numbers: the benchmark knows no "stop". Errors in the step become one line that names the file and
    line they come from.

    Args:
        inner: The object.
        label: Its name or file, for messages.
        recipe: The settings of `UnlearningMethod`.

    Raises:
        InputError: The object has no `unlearn_step`.
    """

    def __init__(self, inner: Any, label: str, **recipe: Any) -> None:
        super().__init__(**recipe)
        if not callable(getattr(inner, "unlearn_step", None)):
            raise InputError(
                f"--method {label}: {type(inner).__name__} has no "
                "unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch); add it"
            )
        self.inner = inner
        self.label = label

    @property
    def name(self) -> str:
        """The file or class it comes from."""
        return self.label

    def unlearn_step(
        self,
        model: torch.nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Calls the object's step."""
        try:
            result = self.inner.unlearn_step(model, retain_batch, forget_batch, optimizer, step, epoch)
        except RetraceError:
            raise
        except (Exception, SystemExit) as error:
            where = _where(error, self.label)
            raise InputError(f"--method {self.label}: unlearn_step failed at step {step}: {where}") from error
        if not isinstance(result, Mapping) or "loss" not in result:
            raise InputError(f'--method {self.label}: unlearn_step must return a dictionary with "loss"; add it')
        numbers = {str(key): value for key, value in result.items() if key != "stop" and is_number(value)}
        if "loss" not in numbers:
            kind = type(result["loss"]).__name__
            raise InputError(
                f'--method {self.label}: unlearn_step returned a "loss" that is no single number ({kind}); '
                "return loss.item()"
            )
        return numbers


def recipe(limits: Limits) -> dict[str, Any]:
    """The settings that every update rule gets.

    Args:
        limits: Epochs and batch size.

    Returns:
        Keyword arguments of `UnlearningMethod`.
    """
    return {"epochs": limits.unlearn_epochs, "batch_size": limits.batch_size, **UNLEARNING}


def find_method(method: Any, limits: Limits, *, own_settings: bool = False) -> Plug:
    """Makes a method ready to run.

    Args:
        method: Name of a baseline or of a method of the zoo, path of a `.py` file with a class `UnlearningMethod`, or
            an object with an `unlearn_step`.
        limits: Epochs and batch size of the recipe.
        own_settings: Use the method's own optimiser, epochs and batches instead. Only for the zoo, whose classes have
            them, and for `UnlearningMethod` objects, which have been given them.

    Returns:
        The method.

    Raises:
        InputError: There is no such method, or its file cannot be used.
    """
    if isinstance(method, Path) or (isinstance(method, str) and (method.endswith(".py") or "/" in method)):
        return _from_file(Path(method).expanduser(), limits, own_settings)
    if not isinstance(method, str):
        return _from_object(method, limits, own_settings)
    if method in BASELINES and not own_settings:
        return Plug(method, BASELINES[method](**recipe(limits)), package_source(), packaged=True)
    if method not in METHODS:
        known = ", ".join(dict.fromkeys([*BASELINES, *METHODS]))
        raise InputError(f"--method {method!r} is unknown; give a .py file, `all`, or one of {known}")
    return Plug(method, _of_zoo(method, limits, own_settings), package_source(), own_settings, packaged=True)


def _of_zoo(name: str, limits: Limits, own_settings: bool) -> UnlearningMethod:
    kind = METHODS[name]
    try:
        method = kind()
        if own_settings or method.epochs == 0:  # 0 epochs: a one-shot method, which has its edit and no steps
            return method
        return kind(**recipe(limits))
    except TypeError as error:
        raise InputError(f"--method {name} cannot be built from its name alone: {error}; use it from Python") from error


def _from_object(method: Any, limits: Limits, own_settings: bool) -> Plug:
    name = type(method).__name__
    if not isinstance(method, UnlearningMethod):
        return Plug(name, ForeignMethod(method, name, **recipe(limits)), None, resumable=False)
    if not own_settings:
        impose(method, limits)
    return Plug(name, method, None, own_settings, resumable=False)


def impose(method: UnlearningMethod, limits: Limits) -> None:
    """Gives a method object the benchmark's recipe in place of its own; one-shot methods keep their 0 epochs.

    Args:
        method: Changed in place.
        limits: Epochs and batch size.
    """
    method.lr, method.weight_decay = UNLEARNING["lr"], UNLEARNING["weight_decay"]
    method.optimizer_name = UNLEARNING["optimizer"]
    method.batch_size = limits.batch_size
    method.scheduler = None
    method.epochs = limits.unlearn_epochs if method.epochs else 0


def _from_file(path: Path, limits: Limits, own_settings: bool) -> Plug:
    if not path.is_file():
        raise InputError(f"--method {path}: there is no such file; check the path")
    kind = getattr(load_file(path), _CLASS, None)
    if not isinstance(kind, type):
        raise InputError(f"--method {path} holds no class {_CLASS}; the benchmark's rules are classes of that name")
    try:
        inner = kind()
    except (Exception, SystemExit) as error:
        where = _where(error, str(path))
        raise InputError(f"--method {path}: {_CLASS}() failed: {where}; it takes no arguments") from error
    source = hashlib.sha256(path.read_bytes() + package_source().encode()).hexdigest()
    if isinstance(inner, UnlearningMethod):
        if not own_settings:
            impose(inner, limits)
        return Plug(path.stem, inner, source, own_settings, file=str(path))
    return Plug(path.stem, ForeignMethod(inner, str(path), **recipe(limits)), source, resumable=False, file=str(path))


def load_file(path: Path) -> Any:
    """Imports a user's file as it is, with the names that the benchmark's own file has at its top: `torch` and `F`.

    Args:
        path: A Python file; it is run.

    Returns:
        The module.

    Raises:
        InputError: The file cannot be imported.
    """
    name = f"retrace_pl_method_{next(_loaded)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--method {path} is no Python file; give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    vars(module).update(torch=torch, F=functional)
    sys.modules[name] = module  # dataclasses and pickling look their module up
    sys.path.insert(0, str(path.parent.resolve()))  # as if the file were run: its neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        where = _where(error, str(path))
        raise InputError(f"--method {path} cannot be imported: {where}; correct the file") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def package_source() -> str:
    """Hash of the code of all packaged methods, so that a result is not taken for that of other code."""
    folders = (Path(unlearning.__file__).parent, Path(__file__).parent)
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _where(error: BaseException, file: str) -> str:
    """An error in one line, with the innermost line of the given file that it comes from, or else its first line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if frame.filename != __file__ and frame.filename[0] != "<"]
    own = [frame for frame in foreign if frame.filename == str(Path(file).absolute())] or foreign[:1]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text
