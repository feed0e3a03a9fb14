"""The client against a real server that fails now and then."""

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import torch

from retrace_pl.errors import InputError, RunError
from retrace_pl.external.answers import AnswerStore
from retrace_pl.external.black_box import BlackBox
from retrace_pl.external.endpoint import EndpointSettings, HttpEndpoint


@pytest.fixture
def connect(tmp_path):
    """Builds black boxes over a service; the waits between attempts are only noted."""
    opened = []

    def make(url, budget=None, **settings):
        waits = []
        endpoint = HttpEndpoint(url, EndpointSettings(**{"batch": 4, "timeout": 5.0, **settings}), sleep=waits.append)
        store = AnswerStore(tmp_path / f"{len(opened)}.answers")
        opened.extend([endpoint, store])
        return BlackBox(url, endpoint, store, endpoint.settings.batch, budget), waits

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def service(serve, models):
    return serve(models["original"])


@pytest.mark.parametrize("encoding", ["base64", "list"])
def test_answers_are_those_of_the_model(service, connect, models, batch, encoding):
    box, waits = connect(service.url, encoding=encoding)
    torch.testing.assert_close(box(batch), models["original"](batch).softmax(1), rtol=1e-4, atol=1e-5)
    assert service.requests == 3
    assert waits == []
    box(batch)
    assert service.requests == 3  # answered from the file


@pytest.mark.parametrize(
    "trouble",
    [(503, {}, "busy"), (429, {}, "slow down"), (500, {}, ""), (502, {}, ""), (504, {}, ""), (408, {}, ""), "drop"],
)
def test_what_may_pass_is_tried_again(service, connect, models, batch, trouble):
    service.script = [trouble, None, trouble, trouble]
    box, waits = connect(service.url)
    torch.testing.assert_close(box(batch), models["original"](batch).softmax(1), rtol=1e-4, atol=1e-5)
    assert len(waits) == 3
    assert box.store.asked == 4 * 6  # three requests answered, three that failed


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(service, connect, batch):
    service.script = ["slow"]
    box, waits = connect(service.url, timeout=0.3)
    assert len(box(batch[:4])) == 4
    assert len(waits) == 1


def test_an_answer_that_drips_has_an_end(connect, batch):
    """Every byte comes in time, the whole does not."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                    for _ in range(1000):
                        connection.sendall(b" ")
                        threading.Event().wait(0.05)
                except OSError:
                    pass

    threading.Thread(target=drip, daemon=True).start()
    box, _ = connect(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.4, retries=1)
    with pytest.raises(RunError, match="no answer in 2 attempts"):
        box(batch[:4])
    listener.close()


def test_waits_grow_and_differ(service, connect, batch):
    service.script = [(503, {}, "")] * 5
    box, waits = connect(service.url)
    box(batch[:4])
    for attempt, wait in enumerate(waits):
        assert 0.25 * 2**attempt <= wait <= 0.5 * 2**attempt
    again, other = connect(service.url)
    service.script = [(503, {}, "")] * 5
    again(batch[:4])
    assert waits != other


def test_retry_after_is_honoured(service, connect, batch):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    service.script = [
        (503, {"Retry-After": "7"}, ""),
        (429, {"Retry-After": later}, ""),
        (503, {"Retry-After": "soon"}, ""),
    ]
    box, waits = connect(service.url)
    box(batch[:4])
    assert waits[0] == 7
    assert 80 < waits[1] <= 90
    assert waits[2] <= 2
    service.script = [(503, {"Retry-After": "90000"}, "")]
    with pytest.raises(RunError, match="90000 seconds"):
        box(batch[4:])


def test_it_gives_up_and_goes_on_later(service, connect, batch):
    box, waits = connect(service.url, retries=2)
    service.script = [None, *[(503, {}, "down for maintenance")] * 3]
    with pytest.raises(RunError, match="no answer in 3 attempts, at last: status 503: down for maintenance"):
        box(batch)
    assert len(waits) == 2
    assert len(box.store) == 4
    service.script = []
    assert len(box(batch)) == 12
    assert service.inputs == 4 * 6  # the first batch was not asked for again


def test_nobody_listens(connect, batch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    box, _ = connect(url, retries=1)
    with pytest.raises(RunError, match="no answer in 2 attempts"):
        box(batch)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_a_refusal_is_not_repeated(service, connect, batch, status):
    service.script = [(status, {"Location": "http://127.0.0.1:1/"}, "no such model")]
    box, waits = connect(service.url)
    with pytest.raises(RunError, match=f"status {status}: no such model"):
        box(batch)
    assert service.requests == 1
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda rows: rows[:-1], "shape"),
        (lambda rows: [row[:-1] for row in rows], "no probabilities"),
        (lambda rows: [[float("nan"), *row[1:]] for row in rows], "not finite"),
        (lambda rows: [[2 * value for value in row] for row in rows], "no probabilities"),
        (lambda rows: [[value - 0.1 for value in row] for row in rows], "no probabilities"),
        (lambda rows: "certainly", "no array"),
        ((200, {}, "<html>"), "does not answer with JSON"),
        ((200, {}, '{"scores": []}'), 'no "probabilities"'),
        ((200, {}, "[]"), 'no "probabilities"'),
    ],
)
def test_a_wrong_answer_is_an_error_at_once(service, connect, batch, answer, message):
    service.script = [answer]
    box, waits = connect(service.url)
    with pytest.raises(RunError, match=message):
        box(batch)
    assert waits == []
    assert len(box.store) == 0


def test_the_number_of_classes_stays(service, connect, batch):
    box, _ = connect(service.url)
    service.script = [None, lambda rows: [[*row, 0.0] for row in rows]]
    with pytest.raises(RunError, match=r"shape \[4, 11\]"):
        box(batch)


def test_failed_attempts_count_and_the_budget_holds(service, connect, batch):
    service.script = [(503, {}, "")] * 100
    box, _ = connect(service.url, budget=10, retries=50)
    with pytest.raises(RunError, match="8 of 10 queries are used"):
        box(batch)
    assert service.inputs == 8


def test_headers_come_from_the_environment(service, connect, batch, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    box, _ = connect(service.url, headers=("Authorization: Bearer $MY_TOKEN",))
    box(batch[:1])
    assert service.headers[0]["Authorization"] == "Bearer secret"
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(InputError, match=r"--endpoint-header.*MY_TOKEN"):
        connect(service.url, headers=("Authorization: Bearer $MY_TOKEN",))


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"batch": 0}, "--endpoint-batch"),
        ({"timeout": 0.0}, "--endpoint-timeout"),
        ({"retries": -1}, "--endpoint-retries"),
        ({"headers": ("no colon",)}, "--endpoint-header"),
    ],
)
def test_settings_out_of_range(settings, option):
    with pytest.raises(InputError, match=option):
        EndpointSettings(**settings)


def test_addresses_that_cannot_be_used():
    with pytest.raises(InputError, match="password"):
        HttpEndpoint("http://me:secret@127.0.0.1/", EndpointSettings())
    with pytest.raises(InputError, match="cannot be used"):
        HttpEndpoint("http://[::1", EndpointSettings())
