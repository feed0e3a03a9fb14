"""Two small networks on digits, one of which never saw class 3, and a server that fails now and then."""

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional

from retrace_pl.models import SmallCNN

DELETED = 3


def digits():
    """All digits as float32 [n, 1, 16, 16] in [0, 1], and their labels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return functional.interpolate(images, (16, 16), mode="bilinear", antialias=True), torch.tensor(bunch.target)


def train(keep, seed, epochs=2):
    inputs, labels = digits()
    inputs, labels = inputs[keep(labels)], labels[keep(labels)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallCNN(1, 10, width=8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def models():
    """The original model, one retrained without class 3, and the original with another seed."""
    everything = torch.ones_like
    without = lambda labels: labels != DELETED  # noqa: E731
    return {
        "original": train(lambda labels: everything(labels, dtype=torch.bool), 0),
        "unlearned": train(without, 1),
        "null": train(lambda labels: everything(labels, dtype=torch.bool), 2),
    }


@pytest.fixture(scope="session")
def weights(models, tmp_path_factory):
    """The models as safetensors, by role."""
    folder = tmp_path_factory.mktemp("weights")
    for name, model in models.items():
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in models}


@pytest.fixture(scope="session")
def batch():
    return digits()[0][:12]


@pytest.fixture(scope="session")
def deleted_file(tmp_path_factory):
    """Some images of the deleted class, and others of it, as .npz files."""
    bunch = load_digits()
    pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)[bunch.target == DELETED]
    folder = tmp_path_factory.mktemp("deleted")
    np.savez(folder / "deleted.npz", x=pixels[:60], y=np.full(60, DELETED))
    np.savez(folder / "heldout.npz", x=pixels[60:120])
    return folder


class Service:
    """A real HTTP server around a model. `script` holds what happens to the next requests; then they are answered."""

    def __init__(self, model):
        self.model = model
        self.script = []
        self.requests = 0
        self.inputs = 0
        self.texts = []
        self.headers = []
        self.answered = Counter()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                service.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/predict"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        content = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))["inputs"]
        if isinstance(content, dict):
            raw = np.frombuffer(base64.b64decode(content["data"]), dtype="<f4")
            inputs = torch.from_numpy(raw.reshape(content["shape"]).copy())
        elif isinstance(content[0], str):
            inputs = content
            self.texts += content
        else:
            inputs = torch.tensor(content)
        self.requests += 1
        self.inputs += len(inputs)
        self.headers.append(dict(handler.headers))
        with torch.no_grad():
            rows = self.model(inputs).softmax(1).tolist()
        step = self.script.pop(0) if self.script else None
        if callable(step):
            rows = step(rows)
        elif step == "drop":
            handler.connection.close()
            handler.close_connection = True
            return
        elif step == "slow":
            threading.Event().wait(1.0)
        elif isinstance(step, tuple):
            status, headers, body = step
            self.send(handler, status, body, headers)
            return
        self.answered.update(row if isinstance(row, str) else row.numpy().tobytes() for row in inputs)
        self.send(handler, 200, json.dumps({"probabilities": rows}))

    @staticmethod
    def send(handler, status, body, headers=()):
        content = body.encode()
        try:
            handler.send_response(status)
            for name, value in dict(headers).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:
            handler.close_connection = True  # the client has given up


@pytest.fixture
def serve():
    """Starts services; all of them end with the test."""
    started = []

    def start(model):
        started.append(Service(model))
        return started[-1]

    yield start
    for service in started:
        service.close()
