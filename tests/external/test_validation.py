import warnings

import numpy as np
import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.answers import AnswerStore
from retrace_pl.external.black_box import BlackBox, python_callable
from retrace_pl.external.images import ImageMaterial
from retrace_pl.external.opening import OpenedModel
from retrace_pl.external.validation import allowed_access, check_model, declared_inputs
from retrace_pl.traces import Access

IMAGES = ImageMaterial(ImageInput(16, 1))


def opened(module, images=IMAGES, access=Access.WHITE, role="original"):
    return OpenedModel(role, "test", module, access, images, {})


def test_files_complete_what_was_declared():
    models = [opened(None, ImageInput(16)), opened(None, ImageInput(16, mean=(0.5,)), role="unlearned")]
    assert declared_inputs([ImageInput(channels=1)], models) == ImageInput(16, 1, mean=(0.5,))


@pytest.mark.parametrize(
    ("declared", "first", "second", "message"),
    [
        (ImageInput(8), ImageInput(16), ImageInput(), "--image-size: 8 by the command line, but --original"),
        (ImageInput(), ImageInput(16), ImageInput(32), "--image-size: 16 by --original, but --unlearned"),
        (ImageInput(mean=(0.5,)), ImageInput(mean=(0.4, 0.5, 0.6)), ImageInput(), "--mean: 0.5 by the command line"),
    ],
)
def test_what_contradicts_itself_names_the_option(declared, first, second, message):
    models = [opened(None, first), opened(None, second, role="unlearned")]
    with pytest.raises(InputError, match=message):
        declared_inputs([declared], models)


def test_one_mean_for_all_channels_is_the_same_as_three():
    models = [opened(None, ImageInput(mean=(0.5, 0.5, 0.5)))]
    assert declared_inputs([ImageInput(mean=(0.5,))], models).mean == (0.5,)


def test_access_is_the_lowest_of_the_formats():
    models = [opened(None), opened(None, access=Access.BLACK, role="unlearned")]
    assert allowed_access(None, models) is Access.BLACK
    assert allowed_access(None, models[:1]) is Access.WHITE
    assert allowed_access(Access.GRAY, models[:1]) is Access.GRAY
    with pytest.raises(InputError, match=r"--access: gray needs more than --unlearned gives"):
        allowed_access(Access.GRAY, models)


def test_a_model_in_training_mode_is_found_out(models, batch):
    checked = check_model(opened(models["original"]), IMAGES, None, batch)
    assert (checked.classes, checked.kind) == (10, "logits")
    assert checked.repeatability < 1e-4

    class AlwaysTraining(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(models["original"](x), 0.5, training=True)

    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        check_model(opened(AlwaysTraining()), IMAGES, None, batch)


def test_a_model_that_cannot_take_the_images(models, batch):
    with pytest.raises(InputError, match=r"--original cannot be run on images \[1, 16, 16\].*--image-size"):
        check_model(opened(nn.Sequential(nn.Flatten(), nn.Linear(9, 2))), IMAGES, None, batch)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(models["original"], torch.rand(2, 1, 16, 16))
    colour = ImageInput(image_size=16, channels=3)
    with pytest.raises(InputError, match=r"\[3, 16, 16\]: RuntimeError: [^\n:]*expected input.*; check") as caught:
        check_model(opened(script), ImageMaterial(colour), None, batch.expand(-1, 3, -1, -1))
    assert "forward" not in str(caught.value), "the reason alone, not the program around it"

    class Nan(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    with pytest.raises(InputError, match="not finite"):
        check_model(opened(Nan()), IMAGES, None, batch)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), "returns .*12"),
        (lambda x: x.mean((1, 2, 3))[:, None], r"\[12, 1\] for 12 images.* scores of at least two classes"),
        (lambda x: x.flatten(1)[:3, :4], r"\[3, 4\] for 12 images"),
        (lambda x: torch.full((len(x), 4), torch.inf), "not finite"),
        (lambda x: torch.arange(4.0).repeat(len(x), 1), "the same scores for 12 different images.*--input-range"),
        (lambda x: torch.full((len(x), 4), 0.25), "the same scores for 12 different images"),
    ],
)
def test_answers_that_are_none_name_the_option(answer, message, batch):
    class Model(nn.Module):
        def forward(self, x):
            return answer(x)

    with pytest.raises(InputError, match=f"--original.*{message}"):
        check_model(opened(Model()), IMAGES, None, batch)


def test_a_black_box_that_is_sure_of_one_class_is_not_taken_for_a_constant(tmp_path, batch):
    store = AnswerStore(tmp_path / "box.answers")
    sure = np.array([1.0, 0.0, 0.0])
    box = BlackBox("box", python_callable(lambda inputs: np.tile(sure, (len(inputs), 1)), "box"), store, 64)
    assert check_model(opened(box, access=Access.BLACK), IMAGES, None, batch).classes == 3
    store.close()


def test_how_far_an_endpoint_repeats_itself_is_measured(tmp_path, batch):
    random = np.random.default_rng(0)

    def moody(inputs):
        first = 0.5 + 0.1 * random.random(len(inputs))
        return np.stack([first, 1 - first], 1)

    store = AnswerStore(tmp_path / "box.answers")
    box = BlackBox("box", python_callable(moody, "box"), store, 64)
    checked = check_model(opened(box, access=Access.BLACK), IMAGES, None, batch)
    assert 0.01 < checked.repeatability < 0.1
    assert store.asked == 2 * len(batch)
    store.close()
