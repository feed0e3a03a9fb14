"""Weights and tokenizers by their name on the Hugging Face hub, or from a local folder; never code."""

from __future__ import annotations

import math
from typing import Any

from retrace_pl.errors import InputError


def load_pretrained(kind: Any, name: str, setting: str = "pretrained", **options: Any) -> Any:
    """Call `kind.from_pretrained`, with errors that a user can act on. Weights are read from safetensors alone.

    Args:
        kind: A model class of transformers.
        name: Name on the hub, such as `gpt2`, or a local folder with `config.json` and `model.safetensors`.
        setting: The setting that the name comes from, for messages.
        options: Further settings of `from_pretrained`; those of the model's configuration are replaced.

    Raises:
        InputError: There is no such model, the hub cannot be reached, or the folder has no safetensors.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(40)  # logging.ERROR: that heads of other tasks are left out is no news
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded = kind.from_pretrained(name, use_safetensors=True, trust_remote_code=False, **options)
        return loaded.train()  # as a fresh model is; transformers hands over models in eval mode
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{setting}: {name!r} cannot be loaded ({lines[0].rstrip('.')}); give a name on the hub, a local folder "
            "with config.json and model.safetensors, or leave it out to start from random weights"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def initial_std(width: int) -> float:
    """Standard deviation of a transformer's fresh weights: BERT's and GPT-2's 0.02 at width 768, `width^-1/2` in step.

    At a fixed 0.02 a narrow network hardly moves at first, because its layers' outputs are too small.
    """
    return 0.02 * math.sqrt(768 / width)


def require_sizes(owner: str, width: int, layers: int, heads: int) -> None:
    """Refuse sizes that no transformer can have.

    Raises:
        InputError: A size is below 1, or the heads do not divide the width.
    """
    for name, value in (("width", width), ("layers", layers), ("heads", heads)):
        if value < 1:
            raise InputError(f"{owner}.{name} is {value}; set it to 1 or more")
    if width % heads:
        raise InputError(f"{owner}.heads is {heads}, which does not divide width {width}; choose a divisor")
