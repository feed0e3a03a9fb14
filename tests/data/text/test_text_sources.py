import pytest
from datasets import ClassLabel, Dataset, Features, Value

from retrace_pl.data import HuggingFaceTextSource
from retrace_pl.errors import InputError

NAMES = ["world", "sports"]
TEXT = ("text", Value("string"), ["one", "two", "three", "four"])
LABEL = ("label", ClassLabel(names=NAMES), [0, 1, 1, 0])


def _write(folder, *columns, name="train"):
    data = Dataset.from_dict(
        {key: values for key, _, values in columns}, Features({key: kind for key, kind, _ in columns})
    )
    folder.mkdir(exist_ok=True)
    data.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(autouse=True)
def _quiet():
    import datasets

    datasets.disable_progress_bars()


def test_a_folder_with_named_classes(tmp_path):
    path = _write(tmp_path / "news", TEXT, LABEL)
    _write(tmp_path / "news", ("text", Value("string"), ["five"]), ("label", ClassLabel(names=NAMES), [1]), name="test")
    source = HuggingFaceTextSource(path)
    opened = source.open()
    assert source.title == "news"
    assert opened.classes == ("world", "sports")
    assert list(opened.train.texts) == ["one", "two", "three", "four"]
    assert opened.train.labels.tolist() == [0, 1, 1, 0]
    assert list(opened.test.texts) == ["five"]
    assert opened.test.labels.tolist() == [1]


def test_whole_numbers_as_labels(tmp_path):
    path = _write(tmp_path / "x", TEXT, ("category", Value("int32"), [4, 9, 9, 4]))
    opened = HuggingFaceTextSource(path).open()
    assert opened.classes == ("4", "9")
    assert opened.train.labels.tolist() == [0, 1, 1, 0]
    assert opened.test is None
    named = HuggingFaceTextSource(path, label_column="category", class_names=NAMES).open()
    assert named.classes == ("world", "sports")


def test_several_text_columns_are_joined(tmp_path):
    path = _write(tmp_path / "x", ("title", Value("string"), ["A", None, "C", "D"]), TEXT, LABEL)
    opened = HuggingFaceTextSource(path, text_column=["title", "text"]).open()
    assert list(opened.train.texts) == ["A one", "two", "C three", "D four"]
    assert list(HuggingFaceTextSource(path).open().train.texts) == ["one", "two", "three", "four"]


def _column(name, kind, values):
    return (name, Value(kind), values)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ([TEXT], {}, "label_column: cannot tell which column of .* it is; set it to one of text"),
        ([TEXT], {"label_column": "topic"}, "label_column: .* has no column 'topic'; its columns are text"),
        ([TEXT, _column("label", "string", list("abab"))], {}, "label_column: 'label' of .* holds string, not whole"),
        ([TEXT, _column("label", "float32", [0.0] * 4)], {}, "label_column: 'label' of .* holds float32, not whole"),
        ([TEXT, _column("label", "bool", [True] * 4)], {}, "label_column: 'label' of .* holds bool, not whole"),
        ([TEXT, _column("label", "int64", [0, None, 1, 0])], {}, "label_column: 'label' is empty in record 1"),
        ([TEXT, ("label", ClassLabel(names=NAMES), [0, -1, 1, 0])], {}, r"train partition .* without a label \(-1\)"),
        ([TEXT, LABEL], {"text_column": "body"}, "text_column: .* has no column 'body'"),
        ([TEXT, LABEL], {"text_column": "label"}, "text_column: 'label' of .* holds no texts"),
        ([TEXT, LABEL], {"text_column": []}, "text_column: the list is empty"),
        ([TEXT, LABEL], {"class_names": ["a"]}, "class_names: 1 names for the 2 classes"),
        ([LABEL, _column("n", "int64", [1] * 4)], {}, "text_column: cannot tell which column"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        HuggingFaceTextSource(_write(tmp_path / "x", *columns), **settings).open()
    assert "\n" not in str(caught.value)


def test_a_test_partition_that_differs(tmp_path):
    path = _write(tmp_path / "x", TEXT, _column("label", "int64", [0, 1, 1, 0]))
    _write(tmp_path / "x", TEXT, _column("label", "int64", [0, 1, 5, 0]), name="test")
    with pytest.raises(InputError, match="the test partition has a class 5 that the train partition does not have"):
        HuggingFaceTextSource(path).open()


def test_data_that_is_not_there(tmp_path):
    for path, message in (
        (str(tmp_path / "no"), "does not exist"),
        ("nobody/nothing", "the Hugging Face hub does not give it"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            HuggingFaceTextSource(path).open()
        assert "\n" not in str(caught.value)
