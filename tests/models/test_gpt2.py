import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, NoRepeatNGramLogitsProcessor

from retrace_pl.errors import InputError
from retrace_pl.files import read_tensors, write_tensors
from retrace_pl.models import Generator, GPT2Generator, TextGenerator
from retrace_pl.models.decoding import _decode, forbid_repeats, greedy_decode
from retrace_pl.models.recoding import Recoder
from retrace_pl.models.text_generator import target_mask

LENGTH, VOCABULARY = 12, 40
TINY = {"latent_dim": 4, "width": 16, "layers": 2, "heads": 2, "prefix": 2}


def generator(seed=0, loud=True, **settings):
    """A small generator with random weights; loud ones listen to z and end at different places."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = GPT2Generator((LENGTH, VOCABULARY), **(TINY | settings))
        if loud:
            with torch.no_grad():
                for weight in made.parameters():
                    weight.mul_(8.0 if weight.ndim > 1 else 1.0)
    return made.eval()


def latents(n=16, seed=0):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def reference(made, z):
    """Greedy decoding without a cache, one text at a time, in double precision."""
    made, rows, size = copy.deepcopy(made).double(), [], made.no_repeat
    for one in z.double()[:, None]:
        ids = [2]
        while len(ids) < LENGTH - 1 and ids[-1] != 3:
            logits = made.decoder.logits(made.decoder(one, torch.tensor([ids]))[:, -1], one)[0].clone()
            logits[[0, 2] if len(ids) > 1 else [0, 2, 3]] = float("-inf")
            for place in range(len(ids) - size + 1 if size else 0):
                if ids[place : place + size - 1] == ids[len(ids) - size + 1 :] and ids[place + size - 1] != 3:
                    logits[ids[place + size - 1]] = float("-inf")
            ids.append(int(logits.argmax()))
        if ids[-1] != 3:
            ids.append(3)
        rows.append(ids + [0] * (LENGTH - len(ids)))
    return torch.tensor(rows)


def test_texts_are_token_ids_of_the_data():
    made = generator()
    texts = made(latents())
    assert isinstance(made, Generator)
    assert isinstance(made, TextGenerator)
    assert texts.shape == (16, *made.output_shape) == (16, LENGTH)
    assert texts.dtype == torch.int64
    assert bool(texts[:, 0].eq(2).all())
    lengths = texts.ne(0).sum(1)
    assert bool((texts[torch.arange(16), lengths - 1] == 3).all()), "every text ends"
    assert bool((lengths >= 3).all()), "no text is empty"
    assert int(texts.max()) < VOCABULARY
    assert len(texts.unique(dim=0)) > 8, "z decides the text"


def test_sampling_with_a_cache_is_greedy_decoding():
    made, z = generator(), latents(24)
    with torch.no_grad():
        made.decoder.body.wte.weight[3] *= 3  # ends are frequent
    assert torch.equal(made(z), reference(made, z))
    assert len({int(row.ne(0).sum()) for row in made(z)}) > 1, "texts leave the batch at different places"


def repeated(row, size):
    grams = [tuple(row[place : place + size]) for place in range(len(row) - size + 1)]
    return len(grams) - len(set(grams))


@pytest.mark.parametrize("size", [0, 2, 3])
def test_no_sequence_occurs_twice_in_a_text(size):
    made, z = generator(2, no_repeat=size), latents(24)
    with torch.no_grad():
        made.decoder.body.wte.weight[3] = 0  # texts do not end
    samples = made(z)
    assert torch.equal(samples, reference(made, z))
    rows = [row[1 : row.index(3)] for row in samples.tolist()]
    counts = [repeated(row, size or 2) for row in rows]
    assert (max(counts) > 0) is (size == 0)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_repeats_are_those_that_transformers_forbids(size):
    random = torch.Generator().manual_seed(size)
    for length in (1, size - 1, size, 12):
        tokens = torch.randint(0, 4, (32, length), generator=random)
        logits = torch.randn(32, 6, generator=random)
        expected = NoRepeatNGramLogitsProcessor(size)(tokens, logits.clone())
        forbid_repeats(logits, tokens, size, end=5)
        assert torch.equal(logits, expected)


def test_a_text_may_always_end():
    logits = torch.zeros(2, 5)
    forbid_repeats(logits, torch.tensor([[1, 4, 2, 1], [1, 2, 3, 1]]), 2, end=4)
    assert logits.tolist() == [[0.0] * 5, [0.0, 0.0, float("-inf"), 0.0, 0.0]]


def test_the_same_latent_gives_the_same_text_in_every_batch():
    made, z = generator(1), latents(64)
    together = made(z)
    assert torch.equal(together, torch.cat([made(part) for part in z.split(7)]))
    assert torch.equal(together, made(z.flip(0)).flip(0))
    torch.rand(3)
    assert torch.equal(together, made(z))


def test_ties_are_decided_in_double_precision():
    made, z = generator(), latents(8)
    # Tokens 5 and 6 are next to equal everywhere: in float32 their order is a matter of rounding.
    with torch.no_grad():
        weight = made.decoder.body.wte.weight
        weight[6] = weight[5] * (1 + 1e-7)
        weight[5:7] *= 3
    single = torch.full((8, LENGTH), 0)
    single[:, 0] = 2
    assert bool(_decode(made.decoder, z, single, 3, [0, 2], 3).any()), "some text was close to a tie"
    assert torch.equal(made(z), reference(made, z))


def test_decoding_leaves_the_mode_alone():
    made = generator()
    made.train()
    first = made(latents())
    assert made.decoder.training
    assert torch.equal(first, made(latents())), "no dropout"


def test_losses_are_those_of_the_definition():
    made, z = generator(), latents(3)
    tokens = torch.tensor([[2, 7, 8, 9, 3, 0], [2, 5, 3, 0, 0, 0], [2, 4, 4, 4, 4, 3]])
    losses, counts = made.losses(z, tokens)
    assert counts.tolist() == [4, 2, 5]
    for row, count in enumerate(counts.tolist()):
        total = 0.0
        for place in range(1, count + 1):
            one = z[row : row + 1]
            logits = made.decoder.logits(made.decoder(one, tokens[row : row + 1, :place])[:, -1], one)[0]
            total -= float(logits.detach().log_softmax(0)[tokens[row, place]])
        assert float(losses[row].detach()) == pytest.approx(total, rel=1e-4)
    blind = torch.zeros_like(tokens, dtype=torch.bool)
    other = tokens.clone()
    other[:, 1:4] = torch.where(other[:, 1:4] > 3, other[:, 1:4] % 7 + 10, other[:, 1:4])
    shown = [made.decoder(z, ids[:, :-1], blind[:, :-1]) for ids in (tokens, other)]
    torch.testing.assert_close(*shown)
    assert not torch.allclose(losses, made.losses(z, tokens, blind)[0])


def test_what_is_predicted_ends_with_the_first_end():
    tokens = torch.tensor([[3, 7, 8, 3, 3, 3], [3, 3, 3, 3, 3, 3]])  # one id begins, ends and pads, as GPT-2's does
    assert target_mask(tokens, 3).int().tolist() == [[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]]


def test_z_reaches_every_logit():
    made, z = generator(), latents(2)
    state = torch.zeros(2, made.decoder.width)
    with torch.no_grad():
        made.decoder.words.weight.normal_(generator=torch.Generator().manual_seed(0))
        made.decoder.words.bias.fill_(0.5)
    torch.testing.assert_close(made.decoder.logits(state, z), z @ made.decoder.words.weight.T + 0.5)
    moved = made.decoder.logits(state + 1.0, z) - made.decoder.logits(state, z)
    torch.testing.assert_close(moved, made.decoder.body.wte.weight.sum(1).expand(2, -1), atol=1e-5, rtol=1e-5)


def test_the_latent_of_a_text_ignores_padding_and_special_tokens():
    made = generator()
    made.fit_encoder(torch.cat([texts_of(60), torch.zeros(60, 2, dtype=torch.int64)], dim=1))
    tokens = torch.tensor([[2, 7, 8, 3, 0, 0], [2, 8, 7, 3, 0, 0], [2, 7, 9, 3, 0, 0]])
    z = made.encode(tokens)
    assert z.shape == (3, 4)
    torch.testing.assert_close(made.encode(tokens[:, :4]), z)
    torch.testing.assert_close(z[0], z[1])
    assert not torch.allclose(z[0], z[2])


def texts_of(n):
    random = torch.Generator().manual_seed(0)
    words = torch.randint(4, VOCABULARY, (n, 8), generator=random)
    return torch.cat([torch.full((n, 1), 2), words, torch.full((n, 1), 3)], dim=1)


def test_distances_between_texts_count_tokens():
    made = generator()
    texts = torch.tensor([[2, 7, 8, 3, 0], [2, 8, 7, 3, 0], [2, 9, 9, 9, 3]])
    points = made.points(texts)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(points[0], points[1])
    assert float((points[0] - points[2]).norm()) > 0.5


def test_weights_pass_through_safetensors(tmp_path):
    first, second = generator(0), generator(1)
    first.fit_encoder(texts_of(60))
    write_tensors(tmp_path / "generator.safetensors", first.state_dict(), {})
    second.load_state_dict(read_tensors(tmp_path / "generator.safetensors"))
    assert torch.equal(first(latents()), second(latents()))
    assert torch.equal(first.encode(texts_of(5)), second.encode(texts_of(5)))


def test_a_local_checkpoint_of_gpt2_is_loaded(tmp_path):
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=20)).save_pretrained(
        tmp_path
    )
    made = GPT2Generator((LENGTH, VOCABULARY), latent_dim=4, prefix=2, pretrained=str(tmp_path))
    stored = GPT2Model.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(made.decoder.body.state_dict()[name], value) for name, value in stored.items())
    with pytest.raises(InputError, match="has 40 token ids, its tokenizer or the data's 41"):
        GPT2Generator((LENGTH, VOCABULARY + 1), pretrained=str(tmp_path))
    with pytest.raises(InputError, match="longer than the window"):
        GPT2Generator((30, VOCABULARY), pretrained=str(tmp_path))


def tokenizer_file(path, vocabulary, special, length):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["stocks fall on oil fears", "the team wins the cup final"] * length, trainer)
    tokenizer.save(str(path))
    return tokenizer


def test_another_vocabulary_goes_by_way_of_the_text(tmp_path):
    data = tokenizer_file(tmp_path / "data.json", 300, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], 2)
    own = tokenizer_file(tmp_path / "own.json", 280, ["<|endoftext|>"], 2)
    sizes = {"tokenizer": str(tmp_path / "own.json"), "data_tokenizer": str(tmp_path / "data.json")}
    space = (40, data.get_vocab_size())
    torch.manual_seed(0)
    made = GPT2Generator(space, own_length=32, **(TINY | sizes)).eval()
    text = "the team wins"
    row = [2, *data.encode(text, add_special_tokens=False).ids, 3]
    inputs = torch.tensor([row + [0] * (40 - len(row))])
    tokens = made.tokens(inputs)
    assert tokens.shape == (1, 32)
    ids = own.encode(text, add_special_tokens=False).ids
    assert tokens[0, : len(ids) + 2].tolist() == [0, *ids, 0]
    assert made.losses(latents(1), tokens)[1].tolist() == [len(ids) + 1]
    samples = made(latents(5))
    assert samples.shape == (5, 40)
    assert bool(samples[:, 0].eq(2).all())
    assert torch.equal(samples, made(latents(5)))
    made.fit_encoder(made(latents(40)))
    assert made.encode(inputs).shape == (1, 4)
    back = Recoder(sizes["tokenizer"], sizes["data_tokenizer"], "tokenizer")
    assert torch.equal(back(tokens, 40, pad=0, begin=2, end=3), inputs)
    assert torch.equal(copy.deepcopy(made)(latents(5)), samples)
    with pytest.raises(InputError, match=r"data_tokenizer: .* ids and the data 301"):
        GPT2Generator((40, 301), **(TINY | sizes))
    with pytest.raises(InputError, match=r"has no token <\|endoftext\|>"):
        GPT2Generator(space, **(TINY | sizes | {"tokenizer": sizes["data_tokenizer"]}))
    with pytest.raises(InputError, match="cannot be loaded") as error:
        GPT2Generator(space, **(TINY | sizes | {"tokenizer": str(tmp_path / "none.json")}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"prefix": 0}, "prefix"),
        ({"no_repeat": 1}, "no_repeat"),
        ({"no_repeat": -1}, "no_repeat"),
        ({"heads": 3}, "heads is 3"),
        ({"dropout": -0.1}, "dropout"),
        ({"eos_id": 2}, "three different ids"),
        ({"pad_id": 50}, "below 40"),
        ({"tokenizer": "gpt2"}, "belong together"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        GPT2Generator((LENGTH, VOCABULARY), **(TINY | settings))


def test_images_are_refused():
    with pytest.raises(InputError, match="choose a text data set"):
        GPT2Generator((1, 16, 16))


def test_double_precision_is_not_decoded_twice():
    made, z = generator().double(), latents(4)
    tokens = greedy_decode(made.decoder, z, LENGTH, begin=2, end=3, pad=0, banned=[0, 2], no_repeat=3)
    assert torch.equal(tokens, generator()(z))
