import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertModel

from retrace_pl.errors import InputError
from retrace_pl.models import Classifier, DistilBertClassifier

TINY = {"width": 16, "layers": 2, "heads": 2, "window": 24}


def ids(n=3, length=10, seed=0):
    return torch.randint(1, 40, (n, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(3)
    DistilBertModel(
        DistilBertConfig(vocab_size=40, dim=8, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=20)
    ).save_pretrained(folder)
    return folder


def test_head_and_features_make_the_logits():
    model = DistilBertClassifier(40, 5, **TINY).eval()
    assert isinstance(model, Classifier)
    features = model.features(ids())
    assert features.shape == (3, model.num_features) == (3, 16)
    torch.testing.assert_close(model.head(features), model(ids()))
    assert model(ids()).shape == (3, 5)
    assert [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1] is model.head


def test_dropout_is_off_in_eval_and_on_in_training():
    model = DistilBertClassifier(40, 5, **TINY)
    assert torch.equal(model.eval()(ids()), model(ids()))
    model.train()
    assert not torch.equal(model(ids()), model(ids()))


def test_both_ways_to_attend_agree():
    plain = DistilBertClassifier(40, 5, **TINY).eval()
    fused = DistilBertClassifier(40, 5, fused_attention=True, **TINY).eval()
    fused.load_state_dict(plain.state_dict())
    padded = torch.nn.functional.pad(ids(), (0, 5))
    torch.testing.assert_close(plain(padded), fused(padded))
    torch.testing.assert_close(plain(padded), plain(ids()))


def test_fresh_weights_follow_the_seed_and_are_those_of_bert():
    model = DistilBertClassifier(2000, 5, width=64, layers=1)
    model.reset_parameters(torch.Generator().manual_seed(1))
    first = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_parameters(torch.Generator().manual_seed(1))
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())
    words = model.body.embeddings.word_embeddings.weight.detach()
    assert float(words[1:].std()) == pytest.approx(0.02 * 12**0.5, rel=0.02)
    assert float(words[0].abs().max()) == 0.0
    assert float(model.head.bias.detach().abs().max()) == 0.0
    torch.manual_seed(5)
    one = DistilBertClassifier(40, 2, **TINY).state_dict()
    torch.manual_seed(5)
    two = DistilBertClassifier(40, 2, **TINY).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_local_checkpoint_folder_is_loaded_by_its_safetensors(checkpoint):
    model = DistilBertClassifier(40, 3, pretrained=str(checkpoint)).eval()
    stored = load_file(checkpoint / "model.safetensors")
    assert model.num_features == 8
    assert model.window == 20
    for name, value in stored.items():
        assert torch.equal(model.body.state_dict()[name], value), name
    reference = DistilBertModel.from_pretrained(checkpoint).eval()
    padded = torch.nn.functional.pad(ids(), (0, 4))
    states = reference(padded, attention_mask=(padded != 0).long()).last_hidden_state[:, 0]
    torch.testing.assert_close(model.features(padded), model.hidden(states))


def test_a_checkpoint_that_cannot_be_used_is_one_clear_line(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"has 40 token ids, the data's tokenizer 50") as error:
        DistilBertClassifier(50, 3, pretrained=str(checkpoint))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"pretrained: .*cannot be loaded") as error:
        DistilBertClassifier(40, 3, pretrained=str(tmp_path))
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")  # a pickle, which is never opened
    with pytest.raises(InputError, match="cannot be loaded"):
        DistilBertClassifier(40, 3, pretrained=str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["dim"] == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "heads": 4}, "heads is 4, which does not divide"),
        ({"layers": 0}, "layers is 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"pad_id": 40}, "pad_id"),
        ({"window": 0}, "window"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        DistilBertClassifier(40, 2, **(TINY | settings))


def test_texts_longer_than_the_window_and_other_inputs_are_refused():
    model = DistilBertClassifier(40, 2, **TINY)
    with pytest.raises(InputError, match="25 tokens are longer than the model's window of 24"):
        model(ids(1, 25))
    with pytest.raises(InputError, match="takes token ids"):
        model(torch.rand(2, 5))
