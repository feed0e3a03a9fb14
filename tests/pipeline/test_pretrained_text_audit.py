"""The packaged audit of DistilBERT and GPT-2, shrunk; data, weights and tokenizers are local folders made here."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, DistilBertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from retrace_pl.cli import main
from retrace_pl.files import read_tensors

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
WORDS = (
    ["minister", "talks", "border", "treaty", "election", "peace", "capital", "vote", "army"],
    ["coach", "cup", "goal", "match", "season", "striker", "league", "final", "fans"],
    ["shares", "profit", "bank", "oil", "market", "prices", "quarter", "sales", "deal"],
    ["software", "chip", "network", "space", "browser", "phone", "virus", "server", "probe"],
)
LENGTH = 20


def texts(count, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    found = [
        " ".join(random.choice(WORDS[label], size=random.integers(5, 14))) + f" {seed}{i}"
        for i, label in enumerate(labels)
    ]
    return Dataset.from_dict(
        {"text": found, "label": labels.tolist()},
        features=Features({"text": Value("string"), "label": ClassLabel(names=list(CLASSES))}),
    )


def distilbert(folder):
    """A checkpoint of DistilBERT with random weights and its tokenizer."""
    words = [*sorted({word for topic in WORDS for word in topic}), *map(str, range(10)), *(f"##{i}" for i in range(10))]
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    sizes = {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 32}
    DistilBertModel(DistilBertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)


def gpt2(folder, written):
    """A checkpoint of GPT-2 with random weights and its tokenizer."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(written, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2Model(GPT2Config(vocab_size=backend.get_vocab_size(), **sizes)).save_pretrained(folder)


@pytest.mark.slow
def test_the_audit_of_distilbert_and_gpt2_starts_from_local_checkpoints(tmp_path, monkeypatch):
    (tmp_path / "ag_news").mkdir()
    train = texts(320, 0)
    train.to_parquet(tmp_path / "ag_news" / "train.parquet")
    texts(80, 1).to_parquet(tmp_path / "ag_news" / "test.parquet")
    torch.manual_seed(0)
    distilbert(tmp_path / "distilbert")
    gpt2(tmp_path / "gpt2", train["text"])
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    bert, gpt = str(tmp_path / "distilbert"), str(tmp_path / "gpt2")
    settings = {
        "data.init_args.tokenizer.init_args.path": bert,
        "data.init_args.max_length": LENGTH,
        "generator.model.init_args.pretrained": gpt,
        "generator.model.init_args.tokenizer": gpt,
        "generator.model.init_args.data_tokenizer": bert,
        "generator.model.init_args.bos_id": 2,
        "generator.model.init_args.eos_id": 3,
        "generator.model.init_args.latent_dim": 4,
        "generator.model.init_args.own_length": 24,
        "generator.epochs": 1,
        "generator.task": json.dumps({"lr": 1e-9}),  # so that the weights remain those of the checkpoint
        "queries": 128,
        "searcher.init_args.num_envs": 32,
        "attack.init_args.top_k": 8,
        "rivals": "[]",
        "inferences": "[]",
        "audit.repeats": 1,
        "audit.bootstrap_samples": 50,
        "trainer.accelerator": "cpu",
        "trainer.threads": 1,
    }
    for part in ("classifier", "evaluator"):
        settings |= {
            f"{part}.model.init_args.pretrained": bert,
            f"{part}.optimizer.init_args.lr": 1e-9,
            f"{part}.epochs": 1,
        }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    out = tmp_path / "run"
    assert main(["audit", "--config", "ag_news_distilbert", *options, "--output", str(out), "--quiet"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["setting"]["classifier"] == "DistilBertClassifier"
    assert metrics["setting"]["generator"] == "GPT2Generator"
    assert metrics["attack"]["distribution"]["bleu"] is not None
    assert len(json.loads((out / "texts.json").read_text())["attack.distribution"]) == 8
    for name, kind, prefix in (
        ("generator", GPT2Model, "decoder.body."),
        ("original", DistilBertModel, "body."),
    ):
        stored = read_tensors(next(out.rglob(f"{name}*.safetensors")))
        expected = kind.from_pretrained(tmp_path / {"generator": "gpt2", "original": "distilbert"}[name]).state_dict()
        assert {f"{prefix}{key}" for key in expected} <= set(stored)
        for key, value in expected.items():
            torch.testing.assert_close(stored[f"{prefix}{key}"], value, atol=1e-6, rtol=0)
    assert read_tensors(next(out.rglob("generator*.safetensors")))["encoder.whitening"].any()
