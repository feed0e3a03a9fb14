import errno
import os

import numpy as np
import pytest
import torch

from retrace_pl.errors import InputError, RunError
from retrace_pl.external import answers
from retrace_pl.external.answers import AnswerStore, input_keys
from retrace_pl.external.black_box import BlackBox, checked_probabilities, python_callable


class Counting:
    """Probabilities of two classes from the mean pixel; counts what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        first = inputs.reshape(len(inputs), -1).mean(1)
        return np.stack([first, 1 - first], 1)


@pytest.fixture
def store(tmp_path):
    with_close = AnswerStore(tmp_path / "box.answers")
    yield with_close
    with_close.close()


def box(function, store, batch=4, budget=None):
    return BlackBox("box", python_callable(function, "box"), store, batch, budget)


def test_every_input_is_asked_for_once(store):
    function = Counting()
    model = box(function, store)
    inputs = torch.rand(10, 1, 4, 4)
    repeated = torch.cat([inputs, inputs[:3]])
    first = model(repeated)
    assert function.calls == [4, 4, 2]
    assert torch.equal(model(repeated), first)
    assert torch.equal(first[:3], first[10:])
    torch.testing.assert_close(first[:, 0], repeated.mean((1, 2, 3)))
    assert sum(function.calls) == store.asked == 10


def test_answers_survive_the_process(tmp_path):
    inputs = torch.rand(6, 1, 4, 4)
    store = AnswerStore(tmp_path / "box.answers")
    first = box(Counting(), store)(inputs)
    store.close()
    store = AnswerStore(tmp_path / "box.answers")
    function = Counting()
    assert torch.equal(box(function, store)(inputs), first)  # to the last bit
    assert function.calls == []
    assert store.asked == 6
    store.close()


def test_shapes_are_part_of_the_question():
    inputs = np.random.default_rng(0).random((3, 1, 4, 4)).astype(np.float32)
    assert len(set(input_keys(inputs) + input_keys(inputs.reshape(3, 1, 2, 8)))) == 6


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_file_that_was_cut_off_keeps_what_came_before(tmp_path, cut):
    path = tmp_path / "box.answers"
    inputs = torch.rand(5, 1, 4, 4)
    store = AnswerStore(path)
    first = box(Counting(), store, batch=1)(inputs)
    store.close()
    path.write_bytes(path.read_bytes()[:-cut])
    store = AnswerStore(path)
    function = Counting()
    assert len(store) < 5
    assert torch.equal(box(function, store, batch=1)(inputs), first)
    assert len(function.calls) + len(store) >= 5
    store.close()
    store = AnswerStore(path)  # what was appended after the cut is readable
    assert len(store) == 5
    store.close()


def test_a_flipped_bit_is_not_taken_for_an_answer(tmp_path):
    path = tmp_path / "box.answers"
    store = AnswerStore(path)
    box(Counting(), store)(torch.rand(3, 1, 4, 4))
    store.close()
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    store = AnswerStore(path)
    assert len(store) == 2
    store.close()


def test_a_full_disk_keeps_the_file_readable(tmp_path, monkeypatch):
    path = tmp_path / "box.answers"
    store = AnswerStore(path)
    model = box(Counting(), store)
    first = model(torch.rand(2, 1, 4, 4))
    write = os.write

    def full(file, content):
        if len(content) > 50:
            write(file, content[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content)

    monkeypatch.setattr(answers.os, "write", full)
    with pytest.raises(RunError, match="No space left"):
        model(torch.rand(4, 1, 4, 4))
    monkeypatch.undo()
    store.close()
    store = AnswerStore(path)
    assert len(store) == len(first)
    assert store.asked == 6  # the box was asked, although its answer was lost
    store.close()


def test_two_runs_do_not_share_a_file(store):
    with pytest.raises(InputError, match="another run"):
        AnswerStore(store.path)


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "notes.answers"
    path.write_text("my notes")
    with pytest.raises(InputError, match="no file of answers"):
        AnswerStore(path)
    assert path.read_text() == "my notes"


def test_the_budget_is_never_exceeded(tmp_path):
    store = AnswerStore(tmp_path / "box.answers")
    function = Counting()
    model = box(function, store, batch=4, budget=10)
    with pytest.raises(RunError, match=r"8 of 10 queries are used and 4 more are needed; .*--endpoint-budget"):
        model(torch.rand(20, 1, 4, 4))
    assert sum(function.calls) == 8
    model(torch.rand(2, 1, 4, 4))
    store.close()
    store = AnswerStore(tmp_path / "box.answers")  # it holds across runs
    with pytest.raises(RunError, match="10 of 10"):
        box(function, store, budget=10)(torch.rand(1, 1, 4, 4))
    assert sum(function.calls) == 10
    store.close()


def test_failed_calls_count_against_the_budget(store):
    def fails(inputs):
        raise ValueError("not today")

    model = box(fails, store, budget=5)
    with pytest.raises(RunError, match="not today"):
        model(torch.rand(3, 1, 4, 4))
    assert store.asked == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[0.5, 0.5]], "shape"),
        ([[0.5, 0.5], [1.0]], "no array"),
        ([[1.0], [1.0]], "shape"),
        ([[0.5, float("nan")], [0.5, 0.5]], "not finite"),
        ([[0.5, 0.6], [0.5, 0.5]], "no probabilities"),
        ([[2.0, -1.0], [0.5, 0.5]], "no probabilities"),
        ("words", "no array"),
        (None, "shape|no array"),
    ],
)
def test_answers_that_are_none(answer, message):
    with pytest.raises(RunError, match=message):
        checked_probabilities(answer, 2, None, "box")


def test_answers_of_every_kind():
    rows = [[0.25, 0.75], [1.0, 0.0]]
    for answer in (
        rows,
        np.array(rows),
        np.array(rows, dtype=np.float16),
        torch.tensor(rows),
        torch.tensor(rows).half(),
    ):
        got = checked_probabilities(answer, 2, 2, "box")
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, rows)
    with pytest.raises(RunError, match=r"\[2, 3\]"):
        checked_probabilities(rows, 2, 3, "box")


def test_a_callable_cannot_change_what_was_asked(store):
    def greedy(inputs):
        inputs[:] = 0
        return np.full((len(inputs), 2), 0.5)

    model = box(greedy, store)
    inputs = torch.rand(2, 1, 4, 4)
    kept = inputs.clone()
    model(inputs)
    assert torch.equal(inputs, kept)
    assert len(store) == 2
