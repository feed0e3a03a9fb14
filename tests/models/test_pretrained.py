"""Names of the hub reach transformers as they are, and one that cannot be had is one line with the remedy."""

import pytest
import transformers

from retrace_pl.data import PretrainedTokenizer
from retrace_pl.errors import InputError
from retrace_pl.models import DistilBertClassifier, GPT2Generator

SIZES = {"vocab_size": 40}


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: gives small models with random weights, and keeps what it was asked for."""
    asked = []

    def answer(kind, make):
        def from_pretrained(name, *_, **settings):
            asked.append((kind, name, settings))
            return make()

        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", from_pretrained)

    distilbert = transformers.DistilBertConfig(dim=8, hidden_dim=16, n_layers=1, n_heads=2, **SIZES)
    gpt2 = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None, **SIZES
    )
    answer("DistilBertModel", lambda: transformers.DistilBertModel(distilbert))
    answer("GPT2Model", lambda: transformers.GPT2Model(gpt2))
    return asked


def test_the_name_of_the_classifier_reaches_from_pretrained(hub):
    model = DistilBertClassifier(40, 4, pretrained="distilbert-base-uncased")
    ((kind, name, settings),) = hub
    assert (kind, name) == ("DistilBertModel", "distilbert-base-uncased")
    assert settings["use_safetensors"] is True
    assert settings["trust_remote_code"] is False
    assert model.num_features == 8


def test_the_name_of_the_generator_reaches_from_pretrained(hub):
    GPT2Generator((20, 40), latent_dim=4, prefix=2, pretrained="gpt2")
    ((kind, name, settings),) = hub
    assert (kind, name) == ("GPT2Model", "gpt2")
    assert settings["use_safetensors"] is True
    assert settings["trust_remote_code"] is False


@pytest.mark.parametrize("name", ["distilbert-base-uncased", "gpt2", "owner/name"])
def test_the_name_of_a_tokenizer_reaches_from_pretrained(name, monkeypatch):
    asked = []

    def from_pretrained(*names, **settings):
        asked.append((names, settings))
        raise OSError("nobody is there")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(
        InputError, match=f"tokenizer: {name} gives no tokenizer, the Hugging Face hub does not"
    ) as error:
        PretrainedTokenizer(name).open((), 12)
    assert asked == [((name,), {"trust_remote_code": False})]
    assert "check the name, the network and HF_HUB_OFFLINE, or use TrainedTokenizer" in str(error.value)


@pytest.mark.parametrize("make", [DistilBertClassifier, lambda *_, **settings: GPT2Generator((20, 40), **settings)])
def test_a_name_that_the_hub_does_not_give_is_one_line_with_the_remedy(make):
    with pytest.raises(InputError, match="pretrained: 'nobody/no-such-model' cannot be loaded") as error:
        make(40, 4, pretrained="nobody/no-such-model")
    assert "\n" not in str(error.value)
    assert "a local folder with config.json and model.safetensors, or leave it out" in str(error.value)
