"""From the command line of `retrace attack --original A --unlearned B` to settings."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.config import ModelSettings, PairData, PairSettings, SearchSettings
from retrace_pl.external.endpoint import EndpointSettings
from retrace_pl.external.texts import NamedTokenizer, TextInput
from retrace_pl.pipeline.parsing import config_folders, one_line
from retrace_pl.traces import Access

__all__ = ["PairRequest", "make_pair_parser", "parse_pair"]

ROLES = ("original", "unlearned", "reference", "null", "evaluator")
_PACKAGED = {"--searcher": "searcher", "--generator.model": "model"}
"""Option -> folder of the packaged files that it takes by their bare names."""


@dataclass(frozen=True)
class PairRequest:
    """A parsed command line.

    Args:
        settings: What is attacked, with what and how.
        output: The run folder.
        quiet: No progress output.
        as_json: Print the result as JSON.
    """

    settings: PairSettings
    output: Path
    quiet: bool
    as_json: bool


def make_pair_parser(description: str) -> ArgumentParser:
    """The parser of `retrace attack` in the form that takes two models."""
    parser = ArgumentParser(prog="retrace attack", description=description, exit_on_error=False, allow_abbrev=False)
    add = parser.add_argument
    add("--config", action="config", help="file with any of these settings, such as config.yaml of an earlier run")
    add("--output", type=str, default=None, help="run folder (default: runs/attack)")
    add("--quiet", action="store_true", help="print nothing but errors, and with --json the result")
    add("--json", action="store_true", help="print the result as JSON on standard output")
    model = ".pt2, safetensors, TorchScript, Hugging Face folder, python:MODULE:FUNCTION or http://..."
    add("--original", type=str, required=True, metavar="MODEL", help=f"the model before unlearning: {model}")
    add("--unlearned", type=str, required=True, metavar="MODEL", help="the model after unlearning, in any format")
    add(
        "--reference",
        type=str | None,
        default=None,
        metavar="MODEL",
        help="control: a model trained without the deleted data",
    )
    add("--null", type=str | None, default=None, metavar="MODEL", help="control: --original with another seed")
    add(
        "--evaluator",
        type=str | None,
        default=None,
        metavar="MODEL",
        help="an independent classifier that judges candidates; needs --deleted",
    )
    add(
        "--model-class",
        type=str | None,
        default=None,
        help="class that safetensors weights belong to: my_package.MyNet, a YAML file with class_path and init_args, "
        "or a packaged one such as small_cnn",
    )
    add("--model-args", type=dict | None, default=None, help="its arguments, such as '{\"width\": 16}'")
    add("--classes", type=int | None, default=None, help="number of classes, where weights do not tell")
    add(
        "--outputs",
        type=Literal["auto", "logits", "probabilities", "log_probabilities"],
        default="auto",
        help="what the models return (default: found out from a batch)",
    )
    add("--image-size", type=int | None, default=None, help="side of the square images the models take, in pixels")
    add("--channels", type=int | None, default=None, help="channels of the images the models take: 1 or 3")
    add(
        "--mean",
        type=str | None,
        default=None,
        help="mean the models subtract: one value, or one for each channel: a,b,c",
    )
    add("--std", type=str | None, default=None, help="standard deviation they divide by, likewise")
    add("--input-range", type=str | None, default=None, help="values of black and white before that (default: 0,1)")
    add(
        "--tokenizer",
        type=str | None,
        default=None,
        help="models of texts: their tokenizer, where no model's folder has it: a folder, a tokenizer.json that was "
        "trained here, or a name on the Hugging Face hub",
    )
    add("--max-length", type=int | None, default=None, help="models of texts: tokens per text (default: at most 128)")
    data = (
        "a folder of images or an .npz file; a folder or a .csv, .tsv, .json, .jsonl, .parquet or .txt file of texts; "
        "or a registered data set such as digits, fashion_mnist:test or ag_news"
    )
    add("--public", type=str, required=True, metavar="DATA", help=f"public records: {data}")
    add(
        "--deleted",
        type=str | None,
        default=None,
        metavar="DATA",
        help="the deleted records, to judge by; never attacked with",
    )
    add("--heldout", type=str | None, default=None, metavar="DATA", help="unseen records of the same kind, to judge by")
    add("--public-size", type=int | None, default=None, help="most public records used, drawn at random")
    add("--exclude-classes", type=str | None, default=None, help="classes to leave out of the public records: a,b,c")
    add("--deleted-classes", type=str | None, default=None, help="classes that were deleted, as the models count: 3,7")
    add(
        "--deletion",
        type=Literal["class", "records"],
        default="class",
        help="what the auditor was told: whole classes were deleted, or single records",
    )
    add(
        "--access",
        type=Literal["black", "gray", "white"] | None,
        default=None,
        help="what the attack may see (default: as much as the models' formats allow)",
    )
    add("--generator-size", type=int | None, default=None, help="side of the generated images (default: 8, 16 or 32)")
    add("--generator-weights", type=str | None, default=None, help="safetensors of a trained generator; trains none")
    add(
        "--generator-pretrained",
        type=str | None,
        default=None,
        help="models of texts: a GPT-2 that the generator starts from, a folder or a name on the Hugging Face hub",
    )
    add("--endpoint-batch", type=int, default=64, help="inputs of one request, or of one call of a Python function")
    add("--endpoint-timeout", type=float, default=30.0, help="seconds until a request counts as failed")
    add("--endpoint-retries", type=int, default=5, help="further attempts after a failed request")
    add(
        "--endpoint-budget",
        type=int | None,
        default=None,
        help="most inputs that each endpoint or function may ever be sent from this run folder, failed attempts "
        "included (default: what the plan needs, and a tenth or ten batches for retries)",
    )
    add("--endpoint-encoding", type=Literal["base64", "list"], default="base64", help="how inputs are sent")
    add(
        "--endpoint-header",
        action="append",
        type=str,
        default=None,
        help="further header, 'Name: value'; $NAME is taken from the environment; repeatable",
    )
    parser.add_class_arguments(SearchSettings, sub_configs=True)
    return parser


def parse_pair(description: str, arguments: list[str]) -> PairRequest:
    """Parses a command line.

    Args:
        description: The command's description, for the help text.
        arguments: The options after the command.

    Raises:
        InputError: An option, a file or a value cannot be used.
        SystemExit: Help was asked for.
    """
    parser = make_pair_parser(description)
    try:
        values = parser.parse_args(list(_with_files(arguments)))
        output, quiet, as_json = (values.pop(name) for name in ("output", "quiet", "json"))
        values.pop("config", None)
        text = parser.dump(values, skip_validation=True)
        plain = values.clone().as_dict()
        found = parser.instantiate(values)
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"settings cannot be used: {one_line(error)}") from error
    search = SearchSettings(**{name: found[name] for name in SearchSettings.__dataclass_fields__})
    settings = PairSettings(
        models=_models(found),
        data=_data(found),
        search=search,
        generator_size=found["generator_size"],
        generator_weights=found["generator_weights"],
        generator_pretrained=found["generator_pretrained"],
        plain=_without_origins(plain),
        text=text,
    )
    return PairRequest(settings, Path(output) if output else Path("runs") / "attack", quiet, as_json)


def _models(found: Mapping[str, Any]) -> ModelSettings:
    declared = (
        _image_input(found),
        TextInput(
            tokenizer=None if found["tokenizer"] is None else NamedTokenizer(found["tokenizer"]),
            max_length=found["max_length"],
        ),
    )
    return ModelSettings(
        roles={role: found[role] for role in ROLES if found[role] is not None},
        model_class=found["model_class"],
        model_args=found["model_args"],
        classes=found["classes"],
        outputs=None if found["outputs"] == "auto" else found["outputs"],
        declared=declared,
        access=None if found["access"] is None else Access(found["access"]),
        endpoint=EndpointSettings(
            batch=found["endpoint_batch"],
            timeout=found["endpoint_timeout"],
            retries=found["endpoint_retries"],
            encoding=found["endpoint_encoding"],
            headers=tuple(found["endpoint_header"] or ()),
        ),
        budget=found["endpoint_budget"],
    )


def _image_input(found: Mapping[str, Any]) -> ImageInput:
    return ImageInput(
        image_size=found["image_size"],
        channels=found["channels"],
        mean=_numbers(found["mean"], "--mean"),
        std=_numbers(found["std"], "--std"),
        input_range=_range(found["input_range"]),
    )


def _data(found: Mapping[str, Any]) -> PairData:
    if found["evaluator"] is not None and found["deleted"] is None:
        raise InputError("--evaluator: it judges against the deleted records; give --deleted too")
    if found["heldout"] is not None and found["deleted"] is None:
        raise InputError("--heldout: it is compared with the deleted records; give --deleted too")
    if found["public_size"] is not None and found["public_size"] < 2:
        raise InputError(f"--public-size: {found['public_size']} is below 2")
    classes = _names(found["deleted_classes"])
    if not all(name.isdecimal() for name in classes or ()):
        raise InputError(f"--deleted-classes: {found['deleted_classes']} are no whole numbers such as 3,7")
    return PairData(
        public=found["public"],
        deleted=found["deleted"],
        heldout=found["heldout"],
        public_size=found["public_size"],
        exclude_classes=_names(found["exclude_classes"]) or (),
        deleted_classes=None if classes is None else tuple(sorted({int(name) for name in classes})),
        deletion=found["deletion"],
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        raise InputError(f"{option}: {text} are no numbers such as 0.5 or 0.485,0.456,0.406") from None
    return found


def _range(text: str | None) -> tuple[float, float] | None:
    found = _numbers(text, "--input-range")
    if found is not None and len(found) != 2:
        raise InputError(f"--input-range: {text} are not two numbers such as 0,1 or -1,1")
    return None if found is None else (found[0], found[1])


def _with_files(arguments: list[str]) -> Iterator[str]:
    """The command line with packaged settings in place of their bare names: ``--searcher cem``."""
    option = ""
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if option in _PACKAGED:
            yield _packaged(option, argument)
        elif sign and name in _PACKAGED:
            yield f"{name}={_packaged(name, value)}"
        else:
            yield argument
        option = argument


def _packaged(option: str, name: str) -> str:
    files = [folder / _PACKAGED[option] / f"{name}.yaml" for folder in config_folders()]
    return next((str(file) for file in files if name.isidentifier() and file.is_file()), name)


def _without_origins(value: Any) -> Any:
    """Settings without the note from which file each part came."""
    if isinstance(value, dict):
        return {name: _without_origins(item) for name, item in value.items() if name != "__path__"}
    return [_without_origins(item) for item in value] if isinstance(value, list) else value
