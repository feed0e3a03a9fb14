import json

import pytest
import torch

from retrace_pl.data import PretrainedTokenizer, TrainedTokenizer
from retrace_pl.data.text import TextTokenizer, text_lengths, trim
from retrace_pl.errors import InputError

TEXTS = [
    "The boat sails over the waves.",
    "Stir the onion, add salt: soup!",
    "White moves; Black castles.",
    "Čaj \u2014 茶 🫖",
]


@pytest.fixture
def tokenizer():
    return TrainedTokenizer(300, cache=None).open(TEXTS * 3, 64)


def test_texts_become_padded_rows_and_come_back(tokenizer):
    ids = tokenizer.encode(TEXTS)
    assert ids.dtype == torch.int64
    assert ids.shape == (4, 64)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 2, 3)
    assert (ids[:, 0] == 2).all()
    for row, length in zip(ids, tokenizer.lengths(ids).tolist(), strict=True):
        assert row[length - 1] == 3
        assert (row[:length] != 0).all()
        assert (row[length:] == 0).all()
    assert tokenizer.decode(ids) == [text.lower() for text in TEXTS]
    assert tokenizer.decode(trim(ids, 0)) == tokenizer.decode(ids)
    assert tokenizer.encode([]).shape == (0, 64)


def test_case_can_be_kept():
    kept = TrainedTokenizer(300, lowercase=False, cache=None).open(TEXTS, 64)
    assert kept.decode(kept.encode(TEXTS)) == TEXTS


def test_no_text_is_unknown(tokenizer):
    strange = ["\u2603 никогда 123", "[SEP] is a text and so is [PAD]"]
    ids = tokenizer.encode(strange)
    assert not (ids == 1).any()
    assert ((ids == 3).sum(dim=1) == 1).all()  # spelled special tokens are no special tokens
    assert tokenizer.decode(ids) == [text.lower() for text in strange]


def test_long_texts_are_cut_before_the_end_token():
    tokenizer = TrainedTokenizer(300, cache=None).open(TEXTS, 6)
    ids, truncated = tokenizer.encode_all(["a", TEXTS[0]])
    assert truncated.tolist() == [False, True]
    whole = TrainedTokenizer(300, cache=None).open(TEXTS, 64).encode(TEXTS[:1])[0]
    assert ids[1].tolist() == [*whole[:5].tolist(), 3]


def test_decoding_stops_at_the_first_end_token(tokenizer):
    first, second = tokenizer.encode(["salt", "soup"])
    short = [
        row[: int(length)].tolist()
        for row, length in zip((first, second), tokenizer.lengths(torch.stack((first, second))), strict=True)
    ]
    assert tokenizer.decode(torch.tensor([short[0] + short[1]])) == ["salt"]


def test_ids_of_another_vocabulary(tokenizer):
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match="not all in the vocabulary of the trained tokenizer"):
            tokenizer.decode(torch.tensor([[2, wrong, 3]]))


def test_lengths_and_trimming():
    ids = torch.tensor([[2, 5, 3, 0, 0], [2, 0, 3, 0, 0], [0, 0, 0, 0, 0]])
    assert text_lengths(ids, 0).tolist() == [3, 3, 0]  # a padding id inside a text counts
    assert trim(ids, 0).tolist() == [[2, 5, 3], [2, 0, 3], [0, 0, 0]]
    assert trim(ids[2:], 0).shape == (1, 1)


def test_training_again_gives_the_same_tokenizer(tmp_path):
    """WordPiece fails this, even within one process: its trainer follows the random order of a hash table."""
    texts = [f"{text} {index % 7} {text[::-1]}" for index in range(40) for text in TEXTS]
    saved = []
    for name in ("first", "second", "third"):
        tokenizer = TrainedTokenizer(400, cache=None).open(texts, 16)
        tokenizer.save(tmp_path / name)
        saved.append((tmp_path / name).read_bytes())
    assert saved[0] == saved[1] == saved[2]
    again = TextTokenizer.from_file(tmp_path / "first", 16)
    assert torch.equal(again.encode(TEXTS), tokenizer.encode(TEXTS))


def test_a_trained_tokenizer_is_kept_and_found_again(tmp_path, monkeypatch):
    source = TrainedTokenizer(300, cache=str(tmp_path / "kept"))
    ids = source.open(TEXTS, 64).encode(TEXTS)
    (file,) = (tmp_path / "kept").iterdir()
    assert json.loads(file.read_text())["model"]["type"] == "BPE"
    monkeypatch.setattr(TrainedTokenizer, "_train", lambda *_: pytest.fail("trained again"))
    assert torch.equal(source.open(TEXTS, 64).encode(TEXTS), ids)
    assert source.open(TEXTS, 32).max_length == 32
    monkeypatch.undo()
    source.open(TEXTS[:2], 64)
    TrainedTokenizer(301, cache=str(tmp_path / "kept")).open(TEXTS, 64)
    assert len(list((tmp_path / "kept").iterdir())) == 3


@pytest.mark.parametrize("cache", [None, "", "null", "None"])
def test_no_cache_means_no_folder(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TrainedTokenizer(300, cache=cache).open(["a text to learn from", "and one more"], 16)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    tokenizer = TrainedTokenizer(300, cache=str(tmp_path / "file" / "folder")).open(TEXTS, 64)
    assert tokenizer.vocab_size > 260
    assert "trained anew each time" in caplog.text


def test_a_damaged_file_in_the_cache(tmp_path):
    source = TrainedTokenizer(300, cache=str(tmp_path))
    source.open(TEXTS, 64)
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file.name} is no tokenizer in JSON; delete") as caught:
        source.open(TEXTS, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"vocab_size": 259}, "vocab_size: 259 is less than"), ({"min_frequency": 0}, "min_frequency: 0 is below 1")],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        TrainedTokenizer(**settings)


def test_no_room_for_text():
    with pytest.raises(InputError, match="max_length: 2 leaves no room beside the 2 special tokens; raise it"):
        TrainedTokenizer(300, cache=None).open(TEXTS, 2)


def test_the_tokenizer_of_a_checkpoint_folder(checkpoint_tokenizer):
    tokenizer = checkpoint_tokenizer(model_max_length=12).open([], 12)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.window) == (0, 2, 3, 12)
    ids = tokenizer.encode(["The boat simmer", "zzz"])
    assert tokenizer.lengths(ids).tolist() == [5, 3]
    assert tokenizer.decode(ids) == ["the boat simmer", ""]  # the unknown token stands for no text


@pytest.mark.parametrize(
    ("settings", "max_length", "message"),
    [
        ({"model_max_length": 12}, 13, r"max_length: 13 is more than the 12 tokens that .*checkpoint takes; lower it"),
        ({"pad_token": None}, 12, "checkpoint has no padding token"),
        ({"pad_token": "[SEP]"}, 12, "checkpoint pads with the token that begins or ends a text"),
        ({"cls_token": None}, 12, "checkpoint does not mark where a text begins and ends"),
        ({"marks": False}, 12, "checkpoint does not mark where a text begins and ends"),
    ],
)
def test_a_tokenizer_that_does_not_fit(checkpoint_tokenizer, settings, max_length, message):
    with pytest.raises(InputError, match=message) as caught:
        checkpoint_tokenizer(**settings).open([], max_length)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere", "the folder /nowhere does not exist"),
        ("${NOT_SET}/x", "environment variable NOT_SET"),
        ("nobody/nothing", "nobody/nothing gives no tokenizer, the Hugging Face hub does not give it"),
    ],
)
def test_a_tokenizer_that_is_not_there(path, message):
    with pytest.raises(InputError, match=message) as caught:
        PretrainedTokenizer(path).open([], 12)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(InputError, match="gives no tokenizer, the folder holds none"):
        PretrainedTokenizer(str(tmp_path)).open([], 12)
