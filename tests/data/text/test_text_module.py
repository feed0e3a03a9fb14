from itertools import combinations

import numpy as np
import pytest
import torch

from retrace_pl.data import SPLITS, LabelledTexts, TextUnlearningDataModule, TrainedTokenizer, UnlearningDataModule
from retrace_pl.data.second_deletion import other_class, shadow_data, without_class
from retrace_pl.data.text import RawTexts
from retrace_pl.data.text.preparation import normalised
from retrace_pl.errors import InputError

PARTS = ("forget", "retain", "test", "evaluator", "public")


def _texts_of(module, source, name):
    partition = source.test if name == "test" and source.test is not None else source.train
    return [partition.texts[index] for index in module.split(name).records]


def test_a_deleted_class(text_module, text_source):
    source = text_source()
    module = text_module(source)
    assert module.deletion == "class"
    assert module.deleted_classes == (1,)
    assert not module.public_includes_deleted
    counts = module.class_counts()
    assert counts["train"] == {"sea": 20, "soup": 20, "chess": 20}
    assert counts["forget"] == {"sea": 0, "soup": 20, "chess": 0}
    assert counts["retain"]["soup"] == counts["public"]["soup"] == 0
    assert all(counts["test"].values())
    for name in SPLITS:
        split = module.split(name)
        assert isinstance(split, LabelledTexts)
        assert split.inputs.dtype == torch.int64
        assert split.inputs.shape == (len(split), 32)
        assert np.array_equal(split.labels, source.train.labels[split.records])
    assert source.opened == 1


def test_inputs_are_the_tokens_of_the_texts(text_module, text_source):
    source = text_source(test_count=30)
    module = text_module(source, max_length=128)
    assert len(module.split("test")) == 30
    for name in SPLITS:
        assert module.tokenizer.decode(module.split(name).inputs) == [
            text.lower() for text in _texts_of(module, source, name)
        ]
    assert set(module.truncated.values()) == {0.0}


def test_what_the_pipeline_asks_of_data_of_any_kind(text_module):
    module = text_module()
    assert module.input_size == module.tokenizer.vocab_size == 300
    assert module.sample_space == (32, 300)
    assert module.num_classes == 3
    assert module.batching == {"vocabulary": 300, "special": [0, 2, 3], "bucket_batches": 16, "data_seed": 0}
    images = UnlearningDataModule.__new__(UnlearningDataModule)
    images.channels, images.image_size = 3, 16
    assert (images.input_size, images.sample_space) == (3, (3, 16, 16))


def test_the_tokenizer_is_trained_on_public_texts_alone(text_module, text_source):
    seen = []

    class Spy(TrainedTokenizer):
        def open(self, public_texts, max_length):
            seen.extend(public_texts)
            return super().open(public_texts, max_length)

    source = text_source()
    module = text_module(source, tokenizer=Spy(300, cache=None))
    public = _texts_of(module, source, "public")
    assert sorted(seen) == sorted(public)


@pytest.mark.parametrize("forget", [{"forget_class": "chess"}, {"forget_fraction": 0.2}, {"forget_indices": [0, 5, 7]}])
@pytest.mark.parametrize("test_count", [None, 30])
def test_no_record_and_no_text_is_in_two_splits(text_module, text_source, forget, test_count):
    source = text_source(test_count=test_count)
    for index in (30, 60, 90):  # copies but for what normalisation drops
        source.train.texts[index] = f"  {source.train.texts[index - 30].upper()}\t"
    module = text_module(source, **forget)
    texts = {name: {normalised(text) for text in _texts_of(module, source, name)} for name in PARTS}
    rows = {name: {tuple(row) for row in module.split(name).inputs.tolist()} for name in PARTS}
    for first, second in combinations(PARTS, 2):
        assert not texts[first] & texts[second]
        assert not rows[first] & rows[second]
    for name in PARTS:
        assert len(texts[name]) == len(rows[name]) == len(module.split(name)) > 0
    assert sum(module.dropped_copies.values()) >= 1
    train = set(module.split("train").records.tolist())
    assert train == set(module.split("retain").records.tolist()) | set(module.split("forget").records.tolist())


def test_deleted_records(text_module):
    module = text_module(forget_fraction=0.1)
    assert module.deletion == "records"
    assert module.public_includes_deleted
    assert len(module.split("forget")) == 6
    assert all(module.class_counts()["public"].values())
    chosen = text_module(forget_indices=[4, 1])
    assert torch.equal(chosen.split("forget").inputs, chosen.split("train").inputs[[1, 4]])


def test_copies_count_for_the_split_that_loses_them(text_module, text_source, caplog):
    source = text_source()
    plain = text_module(source)
    texts = source.train.texts
    forget, retain, public = (plain.split(name).records.tolist() for name in ("forget", "retain", "public"))
    texts[forget[1]] = texts[forget[0]]
    texts[retain[3]] = texts[forget[2]].upper()
    texts[public[4]] = texts[retain[0]] + " \n"
    with caplog.at_level("INFO"):
        module = text_module(source)
        assert module.dropped_copies == {"forget": 1, "retain": 1, "test": 0, "evaluator": 0, "public": 1}
    assert "copies of texts that are in another split: 1 from retain, 1 from public\n" in caplog.text
    assert "copies of texts that are in the same split: 1 from forget\n" in caplog.text
    assert forget[1] not in module.split("forget").records.tolist()
    assert retain[3] not in module.split("retain").records.tolist()
    assert public[4] not in module.split("public").records.tolist()
    assert len(module.split("train")) == len(plain.split("train")) - 2


def test_texts_that_are_equal_as_far_as_the_models_see_are_copies(text_module, text_source):
    source = text_source()
    begin = "No. 7: the same news at great length " * 3
    both = [text_module(source).split(name).records[0] for name in ("forget", "public")]
    for index in both:
        source.train.texts[index] = f"{begin} {index}"
    assert text_module(source, max_length=256).dropped_copies["public"] == 0
    cut = text_module(source)
    assert cut.dropped_copies["public"] == 1
    assert both[1] not in cut.split("public").records


def test_truncation_is_counted_or_refused(text_module, text_source):
    source = text_source()
    module = text_module(source, max_length=12)
    longer = text_module(source, max_length=128)
    for name in PARTS:
        cut = longer.split(name).lengths > 12
        assert module.truncated[name] == pytest.approx(float(cut.double().mean()))
        assert (module.split(name).lengths[cut] == 12).all()
    with pytest.raises(
        InputError, match=r"max_length: record \d+ of the train partition has more than 12 tokens"
    ) as no:
        text_module(source, max_length=12, truncate=False).setup()
    assert "\n" not in str(no.value)
    text_module(source, max_length=128, truncate=False).setup()


@pytest.mark.parametrize("empty", ["", "  \n\u3000"])
def test_an_empty_text(text_module, text_source, empty):
    source = text_source(test_count=12)
    source.test.texts[7] = empty
    with pytest.raises(InputError, match="the text of record 7 of the test partition is empty; remove it"):
        text_module(source).setup()


def test_a_text_of_which_the_tokenizer_leaves_nothing(text_module, text_source):
    class Silent(TrainedTokenizer):
        def _train(self, texts):
            from tokenizers import normalizers

            backend = super()._train(texts)
            backend.normalizer = normalizers.Replace("soup", "")
            return backend

    source = text_source()
    record = int(text_module(source).split("retain").records[2])
    source.train.texts[record] = "soup"
    with pytest.raises(InputError, match=f"leaves nothing of the text of record {record} of the train partition"):
        text_module(source, tokenizer=Silent(300, cache=None)).setup()


def test_a_split_of_nothing_but_copies(text_module, text_source):
    source = text_source(test_count=6)
    source.test.texts[:] = [source.train.texts[int(text_module(source).split("train").records[0])]] * 6
    with pytest.raises(InputError, match="all 6 texts of the test split are copies of texts in other splits"):
        text_module(source).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"forget_class": None},
            "set exactly one of forget_class, forget_fraction and forget_indices; none of them is",
        ),
        ({"forget_class": 0, "forget_fraction": 0.5}, "forget_class and forget_fraction are set"),
        ({"train_size": 0}, "train_size: 0 leaves the split empty"),
        ({"seed": -1}, "seed: -1 is below 0"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"bucket_batches": 0}, "bucket_batches: 0 is below 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_once(text_module, settings, message):
    with pytest.raises(InputError, match=message):
        text_module(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forget_class": "tennis"}, "no class 'tennis'; the classes are 0 'sea', 1 'soup', 2 'chess'"),
        ({"max_length": 2}, "max_length: 2 leaves no room"),
        ({"max_length": -5}, "max_length: -5 leaves no room"),
        ({"train_size": 119}, "would be empty"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused_on_setup(text_module, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        text_module(**settings).setup()
    assert "\n" not in str(caught.value)


def test_the_seed_decides(text_module):
    first, same, other = (text_module(seed=seed) for seed in (1, 1, 2))
    for name in SPLITS:
        assert torch.equal(first.split(name).inputs, same.split(name).inputs)
        assert not torch.equal(first.split(name).records, other.split(name).records)


def test_a_checkpoint_tokenizer(text_module, checkpoint_tokenizer):
    module = text_module(tokenizer=checkpoint_tokenizer(model_max_length=40), max_length=40)
    assert module.sample_space == (40, module.tokenizer.vocab_size)
    assert set(module.truncated.values()) == {0.0}
    with pytest.raises(InputError, match="max_length: 41 is more than the 40 tokens"):
        text_module(tokenizer=checkpoint_tokenizer(model_max_length=40), max_length=41).setup()


def test_loaders_trim_their_batches(text_module):
    module = text_module(max_length=128)
    for loader in (module.loader("evaluator"), module.train_dataloader(), module.val_dataloader()):
        for inputs, labels in loader:
            assert inputs.shape[0] == len(labels)
            assert inputs.shape[1] == int(module.tokenizer.lengths(inputs).max()) < 128
    assert torch.equal(torch.cat([y for _, y in module.val_dataloader()]), module.split("test").labels)
    assert torch.equal(  # texts have no augmentation
        next(iter(module.loader("train", shuffle=True, augment=True)))[0],
        next(iter(module.loader("train", shuffle=True)))[0],
    )


def test_retain_and_forget_go_in_step(text_module):
    module = text_module()
    loader = module.unlearning_view(batch_size=8).train_dataloader()
    batches = [batch for batch, _, _ in iter(loader)]
    assert len(batches) == len(loader) == 5  # 40 retained records
    for name in ("retain", "forget"):
        drawn = torch.cat([batch[name][1] for batch in batches])
        assert set(drawn.tolist()) == set(module.split(name).labels.tolist())
    assert sum(len(batch["retain"][1]) for batch in batches) == 40
    kept, gone = (torch.cat([y for _, y in loader]) for loader in module.unlearning_view().val_dataloader())
    assert set(gone.tolist()) == {1}
    assert set(kept.tolist()) == {0, 2}


def test_a_test_split_without_the_deleted_class(text_module):
    with pytest.raises(InputError, match=r"test_size: the test split holds no text of the (retained|deleted) classes"):
        text_module(test_size=1, forget_class=[0, 1]).unlearning_view().val_dataloader()


def test_second_deletions(text_module):
    module = text_module()
    index = other_class(module)
    arranged = without_class(module, index)
    assert isinstance(arranged, TextUnlearningDataModule)
    assert arranged.deleted_classes == (index,) != module.deleted_classes
    assert set(arranged.split("forget").labels.tolist()) == {index}
    assert arranged.tokenizer is module.tokenizer
    shadow = shadow_data(module, 0)
    assert len(shadow.deleted)
    assert shadow.data.tokenizer is module.tokenizer
    assert len(next(iter(shadow.data.view("train").train_dataloader()))[1]) == 8


def test_records_in_memory():
    texts = LabelledTexts(
        torch.tensor([[2, 3, 0], [2, 5, 3]], dtype=torch.int32), torch.tensor([0, 1]), torch.arange(2), 0
    )
    assert texts.lengths.tolist() == [2, 3]
    assert texts.of_classes([1]).inputs.tolist() == [[2, 5, 3]]
    assert texts.subset(torch.tensor([1, 0])).records.tolist() == [1, 0]


def test_normalised():
    assert normalised(" The ﬁrst\n\tGAME\u00a0is  \uff2fver ") == "the first game is over"


def test_a_source_with_a_label_outside_the_classes(text_source):
    source = text_source(12)
    source.train = RawTexts(source.train.texts, source.train.labels + 1)
    with pytest.raises(InputError, match="the train partition has label 3, outside the 3 classes"):
        source.open()


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"pad_id": 1}, "pad_id: Module has 1, and the tokenizer the trained tokenizer has 0; set it to that"),
        ({"pad_id": 0, "bos_id": 0}, "bos_id: Module has 0, and"),
        ({"eos_id": 7}, "eos_id: Module has 7, and .* has 3"),
        ({"window": 31}, "max_length: 32 is more than the window of 31 tokens of Module"),
    ],
)
def test_a_model_for_another_tokenizer(text_module, says, message):
    model = torch.nn.Module()
    module = text_module()
    module.check_model(model)  # it says nothing of itself
    for name, value in says.items():
        setattr(model, name, value)
    with pytest.raises(InputError, match=message) as caught:
        module.check_model(model)
    assert "\n" not in str(caught.value)
    for name, value in {"pad_id": 0, "bos_id": 2, "eos_id": 3, "window": 32}.items():
        setattr(model, name, value)
    module.check_model(model)


def test_how_texts_were_encoded(text_module):
    module = text_module(max_length=12)
    assert module.encoding == {
        "tokenizer": "the trained tokenizer",
        "vocabulary": 300,
        "max_length": 12,
        "truncated": module.truncated,
    }


def test_domain_judges_by_the_modules_own_tokenizer(text_module):
    module = text_module()
    domain = module.domain.fitted(module.split)
    records = module.split("forget").inputs
    assert domain.texts(records[:2]) == module.tokenizer.decode(records[:2])
    assert domain.nearest(records[:5], records).position.tolist() == list(range(5))
    assert domain.facts()["perplexity_under"] == "interpolated 3-gram model of the evaluator's texts"
    noise = domain.calibration_inputs(module.split("public").inputs, 4, len)["noise"]
    assert noise.shape == (4, records.shape[1])
    assert int(noise.max()) < module.tokenizer.vocab_size


def test_words_of_a_copied_span_are_a_setting_of_the_evaluation(text_module):
    module = text_module(span_words=3)
    assert module.domain.facts()["span_words"] == 3
    assert text_module().domain.facts()["span_words"] == 6
    with pytest.raises(InputError, match="span_words: 0 is below 1"):
        text_module(span_words=0)
