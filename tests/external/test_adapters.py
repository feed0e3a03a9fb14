import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput, PreparedModel, Preprocess
from retrace_pl.external.outputs import only_tensor, output_kind
from retrace_pl.traces import ModelPair


def test_preprocess_puts_pixels_in_range_and_standardises():
    images = torch.rand(2, 3, 8, 8)
    settings = ImageInput(8, 3, mean=(127.5, 100.0, 90.0), std=(60.0, 50.0, 40.0), input_range=(0.0, 255.0))
    got = Preprocess(settings)(images)
    for channel, (mean, std) in enumerate(((127.5, 60.0), (100.0, 50.0), (90.0, 40.0))):
        torch.testing.assert_close(got[:, channel], (255 * images[:, channel] - mean) / std)


def test_preprocess_without_settings_changes_nothing():
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(Preprocess(ImageInput(8, 1))(images), images)


def test_preprocess_resizes_and_keeps_gradients():
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    got = Preprocess(ImageInput(24, 1, mean=(0.5,), std=(0.5,)))(images)
    assert got.shape == (2, 1, 24, 24)
    got.sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        (ImageInput(None, 1), "--image-size"),
        (ImageInput(16, None), "--channels"),
        (ImageInput(2, 1), "--image-size"),
        (ImageInput(16, 2), "--channels"),
        (ImageInput(16, 3, mean=(0.5, 0.5)), "--mean"),
        (ImageInput(16, 1, mean=(123.7,)), "--mean"),
        (ImageInput(16, 1, std=(0.0,)), "--std"),
        (ImageInput(16, 1, std=(58.0,)), "--std"),
        (ImageInput(16, 1, input_range=(1.0, 0.0)), "--input-range"),
    ],
)
def test_preprocess_names_the_option_at_fault(settings, option):
    with pytest.raises(InputError, match=option):
        Preprocess(settings)


def test_output_kinds_are_told_apart():
    logits = torch.randn(5, 4) * 3
    assert output_kind(logits) == "logits"
    assert output_kind(logits.softmax(1)) == "probabilities"
    assert output_kind(logits.log_softmax(1)) == "log_probabilities"
    assert output_kind(logits.softmax(1).half()) == "probabilities"
    assert output_kind(logits.sigmoid()) == "logits"  # in [0, 1], but no distribution


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_every_kind_gives_the_same_probabilities_and_gradients(kind, models, batch):
    class Returns(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            y = self.model(x)
            return {"logits": y, "probabilities": y.softmax(1), "log_probabilities": y.log_softmax(1)}[kind]

    settings = ImageInput(16, 1)
    wrapped = [PreparedModel(Returns(models[name]), Preprocess(settings), kind) for name in ("original", "unlearned")]
    plain = ModelPair(models["original"], models["unlearned"], "white").respond(batch)
    got = ModelPair(*wrapped, "white").respond(batch)
    torch.testing.assert_close(got.probabilities.original, plain.probabilities.original, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.losses.unlearned, plain.losses.unlearned, rtol=1e-3, atol=1e-3)
    if kind != "probabilities":  # their logarithm loses what a saturated float32 has lost
        torch.testing.assert_close(got.gradients.original, plain.gradients.original, rtol=1e-3, atol=1e-5)


def test_certain_probabilities_stay_finite():
    class Certain(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    model = PreparedModel(Certain(), Preprocess(ImageInput(4, 1)), "probabilities")
    got = model(torch.rand(3, 1, 4, 4))
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.softmax(1)[:, 0], torch.ones(3))


def test_only_tensor_finds_the_scores():
    scores = torch.zeros(2, 3)
    holder = type("Output", (), {"logits": scores})()
    for outputs in (scores, (scores,), {"logits": scores, "hidden": 1}, {"anything": scores}, holder):
        assert only_tensor(outputs) is scores
    for outputs in ((scores, scores), torch.zeros(2, 3, 1, 1), "text"):
        with pytest.raises(InputError, match="must return class scores"):
            only_tensor(outputs)
