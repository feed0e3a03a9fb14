"""`retrace attack --original A --unlearned B` on two text classifiers, from their folders to the report."""

import csv
import json
import sys

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Model,
    PreTrainedTokenizerFast,
)

from retrace_pl import attack_pair
from retrace_pl.cli import main
from retrace_pl.data.text import open_tokenizer
from retrace_pl.errors import InputError
from retrace_pl.external.hugging_face import read_hugging_face
from retrace_pl.external.questions import TextQuestions
from retrace_pl.external.texts import NamedTokenizer, TextInput, TextMaterial
from retrace_pl.metrics import wilson_interval
from retrace_pl.models import DistilBertClassifier, TokenBehaviour
from retrace_pl.models.sequence_classifier import SequenceClassifier
from retrace_pl.traces import Access, ModelPair

TOPICS = ("World", "Sports", "Business", "Sci/Tech")
DELETED = 1
LENGTH = 16
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

TINY = [
    "--queries=96",
    "--repeats=1",
    "--searcher=RandomSearcher",
    "--attack.init_args.top_k=8",
    "--generator.epochs=1",
    "--generator.model=gpt2_tiny",
    "--generator.model.init_args.latent_dim=4",
    "--generator.model.init_args.width=32",
    "--bootstrap_samples=50",
    "--trainer.accelerator=cpu",
    "--trainer.threads=1",
]


def save_tokenizer(folder, extra=()):
    """A WordPiece tokenizer of the made-up news."""
    words = [f"{topic.lower()[:4]}{index}" for topic in TOPICS for index in range(12)]
    pieces = [*map(str, range(10)), *(f"##{digit}" for digit in range(10)), *extra]
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words, *pieces])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return len(vocabulary)


def train(texts, labels, tokenizer, seed):
    """A small DistilBERT that has learned some topics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 32}
        quiet = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
        config = DistilBertConfig(vocab_size=tokenizer.vocab_size, num_labels=len(TOPICS), **sizes, **quiet)
        model = DistilBertForSequenceClassification(config)
        ids = tokenizer.encode(texts)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        for _ in range(10):
            for rows in torch.randperm(len(ids)).split(32):
                optimizer.zero_grad()
                logits = model(input_ids=ids[rows], attention_mask=ids[rows].ne(0).long()).logits
                functional.cross_entropy(logits, labels[rows]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def pair(write_news, tmp_path_factory):
    """Folders of the original model and of one that never saw sports, and files of texts."""
    root = tmp_path_factory.mktemp("pair")
    write_news(root / "news", train=320, test=80)
    news = load_dataset("parquet", data_files=str(root / "news" / "train.parquet"), split="train")
    texts, labels = list(news["text"]), torch.tensor(news["label"])
    for name in ("original", "unlearned", "evaluator"):
        save_tokenizer(root / name)
    tokenizer = open_tokenizer(str(root / "original"), LENGTH)
    kept = labels != DELETED
    train(texts, labels, tokenizer, 0).save_pretrained(root / "original")
    train([text for text, keep in zip(texts, kept, strict=True) if keep], labels[kept], tokenizer, 1).save_pretrained(
        root / "unlearned"
    )
    train(texts, labels, tokenizer, 2).save_pretrained(root / "evaluator")
    deleted = [index for index, label in enumerate(labels.tolist()) if label == DELETED]
    with (root / "deleted.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([texts[index], DELETED] for index in deleted[:30])])
    with (root / "heldout.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": texts[index], "label": DELETED}) + "\n" for index in deleted[30:60])
    with (root / "public.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": texts[index]}) + "\n" for index in range(len(texts)) if kept[index])
    return root


def arguments(root, *options):
    models = [f"--{role}={root / role}" for role in ("original", "unlearned")]
    return [*models, f"--public={root / 'public.jsonl'}", f"--max-length={LENGTH}", *TINY, *options]


def run(options, capsys):
    code = main(["attack", *options, "--quiet", "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out)["metrics"]


def refused(options, capsys):
    """Message of a command line that is refused: one line, exit code 2."""
    assert main(["attack", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("retrace: error:")]) == 1
    return error.splitlines()[-1]


def test_two_folders_and_public_texts(pair, tmp_path, capsys):
    metrics = run(arguments(pair, f"--output={tmp_path / 'run'}"), capsys)
    assert metrics["verdict"] == "not_judged"
    assert metrics["domain"] == "text"
    assert metrics["setting"]["access"] == "white"
    assert metrics["setting"]["preprocessing"]["max_length"] == LENGTH
    assert metrics["encoding"]["truncated"] == {"public": 0.0}
    assert metrics["controls"]["identity"]["max_trace"] == 0
    assert set(metrics["inferences"]["class_inference"]["answer"]["per_class"]["ranking"]) <= {0, 1, 2, 3}
    assert metrics["classes"] == ["0", "1", "2", "3"], "the public texts have no labels"
    assert metrics["gaps"]["attack"]["gap"] > 0
    assert metrics["attack"]["distribution"]["distinct_2"] > 0
    assert metrics["attack"]["distribution"]["perplexity"] > 1
    texts = json.loads((tmp_path / "run" / "texts.json").read_text())
    assert len(texts["attack.distribution"]) == 8
    assert load_file(tmp_path / "run" / "candidates.safetensors")["attack-0/inputs"].shape == (8, LENGTH)
    page = (tmp_path / "run" / "report.html").read_text()
    assert texts["attack.distribution"][0].split()[0] in page

    assert main(["attack", f"--config={tmp_path / 'run' / 'config.yaml'}", f"--output={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().err.count("done already") == 5


def test_deleted_texts_and_an_evaluator_give_a_verdict(pair, tmp_path, capsys):
    options = [
        f"--evaluator={pair / 'evaluator'}",
        f"--null={pair / 'evaluator'}",
        f"--reference={pair / 'unlearned'}",
        f"--deleted={pair / 'deleted.csv'}",
        f"--heldout={pair / 'heldout.jsonl'}",
        "--access=gray",
        "--deleted-classes=1",
        f"--output={tmp_path / 'run'}",
    ]
    metrics = run(arguments(pair, *options), capsys)
    assert metrics["verdict"] in ("leak", "no_evidence")
    assert metrics["setting"]["signals"] == ["prediction", "loss"]
    assert metrics["setting"]["deleted_classes"] == ["1"]
    assert metrics["original"]["forget_acc"] > 0.9
    assert metrics["unlearning"]["forget_acc"] == 0
    found = metrics["attack"]["distribution"]
    for name in ("bleu", "bleu_corpus", "rouge_l", "longest_span", "sr_rouge", "sr_verbatim", "sr_oracle"):
        assert found[name] is not None, name
    assert found["intervals"]["sr_oracle"] == list(wilson_interval(round(8 * found["sr_oracle"]), 8, 0.95))
    assert metrics["floors"]["heldout_sr_oracle"] > 0.9
    assert metrics["floors"]["heldout_bleu"] > 0
    assert metrics["leakage"]["excess"]["metric"] == "sr_oracle"
    assert metrics["leakage"]["avoidable"]["value"] == 0  # the reference is the unlearned model itself
    assert metrics["leakage"]["record"]["metric"] == "relative_nearest_rouge_l"
    assert metrics["significance"]["likeness"]["null_pairs"] == 1
    texts = json.loads((tmp_path / "run" / "texts.json").read_text())
    deleted = {" ".join(row["text"].split()) for row in csv.DictReader((pair / "deleted.csv").read_text().splitlines())}
    assert set(texts["attack.nearest"]) <= deleted


def test_a_function_is_asked_for_texts(pair, tmp_path, capsys, monkeypatch):
    (tmp_path / "service.py").write_text(
        "import torch\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f"folder = {str(pair / 'original')!r}\n"
        "model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), "
        "AutoTokenizer.from_pretrained(folder)\n"
        "asked = []\n"
        "def predict(texts):\n"
        "    assert isinstance(texts, list) and all(isinstance(text, str) for text in texts)\n"
        "    asked.extend(texts)\n"
        f"    batch = tokenizer(texts, padding=True, truncation=True, max_length={LENGTH}, return_tensors='pt')\n"
        "    batch.pop('token_type_ids', None)\n"
        "    with torch.no_grad():\n"
        "        return model(**batch).logits.softmax(1).numpy()\n"
    )
    monkeypatch.chdir(tmp_path)
    options = [f"--unlearned={pair / 'unlearned'}", f"--public={pair / 'public.jsonl'}", *TINY]
    metrics = run(["--original=python:service:predict", *options, f"--output={tmp_path / 'run'}"], capsys)
    assert metrics["setting"]["access"] == "black"
    assert metrics["setting"]["preprocessing"]["tokenizer"] == str(pair / "unlearned")
    assert metrics["controls"]["identity"]["max_trace"] == 0
    asked = sys.modules["service"].asked
    assert any(text.startswith("worl") for text in asked)
    assert len(asked) <= metrics["budget"]["queries"] * 2 + 240 + 100
    del sys.modules["service"]


def test_an_endpoint_is_sent_texts(pair, tmp_path, capsys, serve):
    tokenizer = open_tokenizer(str(pair / "original"), LENGTH)
    model = SequenceClassifier(AutoModelForSequenceClassification.from_pretrained(pair / "original"), 0).eval()

    class Service(torch.nn.Module):
        def forward(self, texts):
            return model(tokenizer.encode(texts))

    service = serve(Service())
    options = [f"--unlearned={pair / 'unlearned'}", f"--public={pair / 'public.jsonl'}", *TINY]
    metrics = run([f"--original={service.url}", *options, f"--output={tmp_path / 'run'}"], capsys)
    assert metrics["setting"]["access"] == "black"
    assert metrics["budget"]["sent_to_original"].startswith(f"{len(service.texts)} of at most")
    assert service.inputs == len(service.texts)


def test_texts_have_keys_of_their_own():
    first, second = TextQuestions(["a b", "a b c"]), TextQuestions(["a b"])
    assert first.keys()[0] == second.keys()[0] != first.keys()[1]
    assert first.rows([1]).argument() == ["a b c"]
    assert second.content("base64") == ["a b"]


def test_white_box_gradients_are_those_of_the_model(pair):
    module, inputs, access = read_hugging_face(pair / "original", "--original")
    assert access is Access.WHITE
    assert inputs.window == 32
    texts = open_tokenizer(str(pair / "original"), LENGTH).encode(["spor1 spor2 worl3", "busi1 12"])
    other, _, _ = read_hugging_face(pair / "unlearned", "--unlearned")
    found = ModelPair(module, other, Access.WHITE).input_gradients(texts).original
    model = AutoModelForSequenceClassification.from_pretrained(pair / "original").eval()
    embedded = model.get_input_embeddings()(texts).detach().requires_grad_(True)
    logits = model(inputs_embeds=embedded, attention_mask=texts.ne(0).long()).logits
    functional.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
    mask = texts.ne(0)[..., None]
    torch.testing.assert_close(found * mask, embedded.grad * mask, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(TokenBehaviour(0).forward(module, texts), logits.detach(), rtol=1e-4, atol=1e-5)


def test_an_architecture_that_looks_for_the_end_of_the_ids_is_not_entered_at_the_embeddings(tmp_path):
    size = save_tokenizer(tmp_path / "gpt2")
    config = GPT2Config(
        vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=4, pad_token_id=0, eos_token_id=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt2")
    assert read_hugging_face(tmp_path / "gpt2", "--original")[2] is Access.GRAY


def test_weights_of_a_classifier_of_this_package(pair, tmp_path, capsys):
    tokenizer = open_tokenizer(str(pair / "original"), LENGTH)
    settings = {"vocab_size": tokenizer.vocab_size, "num_classes": 4, "width": 16, "layers": 1, "heads": 2}
    for seed, name in enumerate(("original", "unlearned")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file(DistilBertClassifier(**settings).state_dict(), tmp_path / f"{name}.safetensors")
    options = [f"--{name}={tmp_path / name}.safetensors" for name in ("original", "unlearned")]
    options += ["--model-class=retrace_pl.models.DistilBertClassifier", f"--model-args={json.dumps(settings)}"]
    options += [f"--public={pair / 'public.jsonl'}", f"--max-length={LENGTH}", *TINY, f"--output={tmp_path / 'run'}"]
    assert "--tokenizer: no model's folder holds one" in refused(options, capsys)
    metrics = run([*options, f"--tokenizer={pair / 'original'}"], capsys)
    assert metrics["setting"]["access"] == "white"


@pytest.fixture(scope="module")
def gpt2(pair, tmp_path_factory):
    """A small GPT-2 with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("gpt2")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    written = [json.loads(line)["text"] for line in (pair / "public.jsonl").read_text().splitlines()]
    backend.train_from_iterator(written, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
        GPT2Model(GPT2Config(vocab_size=backend.get_vocab_size(), **sizes)).save_pretrained(folder)
    return folder


def test_the_generator_starts_from_a_given_gpt2(pair, gpt2, tmp_path, capsys):
    tiny = [option for option in TINY if "generator.model" not in option]
    options = [f"--{role}={pair / role}" for role in ("original", "unlearned")]
    options += [f"--public={pair / 'public.jsonl'}", f"--max-length={LENGTH}", *tiny, f"--output={tmp_path / 'run'}"]
    given = [f"--generator-pretrained={gpt2}", '--generator.task={"lr": 1e-9}']
    metrics = run([*options, *given], capsys)
    assert metrics["setting"]["generator"] == "GPT2Generator"
    weights = load_file(tmp_path / "run" / "generator.safetensors")
    stored = load_file(gpt2 / "model.safetensors")["wpe.weight"]
    kept = next(value for name, value in weights.items() if name.endswith("wpe.weight"))
    torch.testing.assert_close(kept, stored, rtol=0, atol=1e-6)

    missing = [*options, f"--generator-pretrained={tmp_path / 'nothing'}"]
    assert "--generator-pretrained: " in refused(missing, capsys)
    both = [*options, *given, "--generator.model=gpt2_tiny"]
    assert "--generator-pretrained and --generator.model" in refused(both, capsys)


def test_what_does_not_fit_is_refused_before_the_first_query(pair, tmp_path, capsys):
    out = f"--output={tmp_path / 'run'}"
    long = [option for option in arguments(pair, out) if not option.startswith("--max-length")]
    assert "--max-length: 40 is more than the 32 tokens" in refused([*long, "--max-length=40"], capsys)
    message = refused(arguments(pair, out, "--image-size=16"), capsys)
    assert "--max-length is about texts, and --image-size about images" in message
    assert "--generator-size" in refused(arguments(pair, out, "--generator-size=16"), capsys)

    save_tokenizer(tmp_path / "larger", ["more"])
    assert "--tokenizer: " in (message := refused(arguments(pair, out, f"--tokenizer={tmp_path / 'larger'}"), capsys))
    assert "--original was made for" in message

    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((pair / "original" / name).read_bytes())
    bare = [f"--original={tmp_path / 'bare'}", f"--unlearned={tmp_path / 'bare'}", *arguments(pair, out)[2:]]
    assert "--tokenizer: no model's folder holds one" in refused(bare, capsys)
    message = refused([*bare, f"--tokenizer={tmp_path / 'larger'}"], capsys)
    assert "has 73 tokens, and the model of --original embeds 72" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nspor1 spor2,1\n   ,1\n", "the text of record 1"),
        ("text,label\nspor1 spor2,sports\nworl1 worl2,world\n", "not whole numbers"),
        ("number,label\n1,1\n2,1\n", "--public: text_column: cannot tell which column"),
        ("", "--public: path"),
    ],
)
def test_texts_that_cannot_be_used_are_one_line(content, message, pair, tmp_path, capsys):
    (tmp_path / "texts.csv").write_text(content)
    options = [option for option in arguments(pair) if not option.startswith("--public")]
    line = refused([*options, f"--public={tmp_path / 'texts.csv'}", f"--output={tmp_path / 'run'}"], capsys)
    assert message in line
    assert line.startswith("retrace: error: --public")


def test_from_python(pair, tmp_path):
    run = attack_pair(
        str(pair / "original"),
        str(pair / "unlearned"),
        str(pair / "public.jsonl"),
        tmp_path / "run",
        max_length=LENGTH,
        queries=64,
        repeats=1,
        overrides={
            "searcher": "RandomSearcher",
            "attack.init_args.top_k": 4,
            "generator.epochs": 1,
            "bootstrap_samples": 20,
            "trainer.accelerator": "cpu",
            "generator.model": "gpt2_tiny",
            "generator.model.init_args.latent_dim": 4,
        },
    )
    assert len(run.texts["attack.distribution"]) == 4


def test_a_registered_data_set(pair, tmp_path, monkeypatch, write_news):
    write_news(tmp_path / "ag_news", train=40, test=20)
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    material = TextMaterial(TextInput(tokenizer=NamedTokenizer(str(pair / "original")), max_length=8))
    found = material.read("ag_news:test", "--public", exclude=("Sports",), limit=10)
    assert (len(found), found.classes) == (10, TOPICS)
    assert DELETED not in found.labels
    assert found.inputs.shape == (10, 8)
    assert material.encoding()["encoding"]["truncated"] == {"public": 1.0}, "eight words, a number and two marks"
    assert len(material.read("ag_news", "--public")) == 40
    with pytest.raises(InputError, match="--public: digits holds no texts"):
        material.read("digits", "--public")
    with pytest.raises(InputError, match="--exclude-classes: ag_news has no class Weather"):
        material.read("ag_news", "--public", exclude=("Weather",))
    with pytest.raises(InputError, match="--public: nowhere is no folder, no file of texts and no registered data set"):
        material.read("nowhere", "--public")


def test_what_two_folders_say_of_texts_is_completed():
    first, second = TextInput(window=64), TextInput(window=32, max_length=16)
    both = first.completed(second)
    assert (both.window, both.max_length) == (32, 16)
    assert TextInput().options() == {}
    with pytest.raises(InputError, match="--tokenizer: no model's folder holds one"):
        TextMaterial(TextInput(max_length=16))
