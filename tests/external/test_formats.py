"""Every format gives back the model that was saved, and none of them runs what somebody hid in a file."""

import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.external.config import ModelSettings
from retrace_pl.external.opening import ModelOpener
from retrace_pl.external.outputs import only_tensor
from retrace_pl.models import SmallCNN


class Evil:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def opener(tmp_path):
    openers = []

    def open_model(name, **settings):
        openers.append(ModelOpener(ModelSettings({"original": str(name)}, **settings), tmp_path / "answers"))
        return openers[-1].open("original")

    yield open_model
    for one in openers:
        one.close()


def export(model, path, dynamic=True, batch=3):
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(model, (torch.rand(batch, 1, 16, 16),), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="session")
def exported(models, tmp_path_factory):
    return export(models["original"], tmp_path_factory.mktemp("exported") / "model.pt2")


def script(model, path, trace=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(model, torch.rand(2, 1, 16, 16)) if trace else torch.jit.script(model)
        torch.jit.save(made, str(path))
    return path


def assert_same(found, model, inputs):
    """Probabilities and input gradients of a module that was opened are those of the model itself."""
    ours, theirs = (inputs.clone().requires_grad_() for _ in range(2))
    got, expected = only_tensor(found(ours)), model(theirs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for outputs, leaf in ((got, ours), (expected, theirs)):
        outputs.logsumexp(1).sum().backward(inputs=[leaf])
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_torch_export(opener, exported, models, batch):
    opened = opener(exported)
    assert opened.format == "torch.export"
    assert (opened.inputs.image_size, opened.inputs.channels) == (16, 1)
    assert torch.equal(opened.module(batch), models["original"](batch))
    assert_same(opened.module, models["original"], batch)
    assert str(opened.access) == "white"


def test_torch_export_of_one_batch_size_takes_any(opener, tmp_path, models, batch):
    module = opener(export(models["original"], tmp_path / "static.pt2", dynamic=False, batch=5)).module
    for count in (1, 5, 12):
        torch.testing.assert_close(module(batch[:count]), models["original"](batch[:count]), rtol=1e-5, atol=1e-6)


def test_torch_export_with_infinite_constants(opener, tmp_path, batch):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(256, 10)

        def forward(self, x):
            scores = self.head(x.flatten(1))
            weights = scores.masked_fill(scores < 0, float("-inf")).softmax(1).nan_to_num(float("nan"))
            return scores * weights.clamp(0.0, float("inf"))

    model = Masked().eval()
    assert torch.equal(opener(export(model, tmp_path / "masked.pt2")).module(batch), model(batch))


def test_torch_export_shares_tied_weights(opener, tmp_path, batch):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(256, 256)
            self.second = nn.Linear(256, 256)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x.flatten(1)).relu_())

    model = Tied().eval()
    module = opener(export(model, tmp_path / "tied.pt2")).module
    assert torch.equal(module(batch), model(batch))
    assert len(list(module.parameters())) == 3


def test_torch_export_in_training_mode_is_refused(opener, tmp_path):
    torch.manual_seed(0)
    path = export(SmallCNN(1, 10, width=4).train(), tmp_path / "training.pt2")
    with pytest.raises(InputError, match=r"model.eval\(\) before the export"):
        opener(path)


def rewritten(source, target, changes):
    """A copy of an archive with some records changed, by the end of their names."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for ending, change in changes.items():
                if name.endswith(ending):
                    content = change(content)
            new.writestr(name, content)
    return target


def in_program(change):
    def changed(content):
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return changed


def pickled(path):
    buffer = io.BytesIO()
    torch.save({"evil": Evil(path)}, buffer)
    return buffer.getvalue()


def test_torch_export_never_reads_pickled_sample_inputs(opener, exported, tmp_path, models, batch):
    trap = tmp_path / "trap"
    path = rewritten(exported, tmp_path / "a.pt2", {"sample_inputs/model.pt": lambda _: pickled(trap)})
    assert torch.equal(opener(path).module(batch), models["original"](batch))
    assert not trap.exists()
    torch.load(io.BytesIO(pickled(trap)), weights_only=False)  # the trap is a real one
    assert trap.exists()


def test_torch_export_runs_no_code_of_the_archive(opener, exported, tmp_path, models, batch):
    trap = tmp_path / "trap"
    code = f"__import__('os').mkdir({str(trap)!r})"

    def guards(program):
        program["guards_code"] = [code]

    def sizes(program):
        values = program["graph_module"]["graph"]["tensor_values"]
        for meta in (meta for meta in values.values() if meta["sizes"]):
            meta["sizes"][:1] = [{"as_expr": {"expr_str": code, "hint": None}}]

    def names(program):
        for entry in program["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["out_spec"] = json.dumps([1, {"type": code, "context": "null", "children_spec": []}])

    for change in (guards, sizes, names):
        path = rewritten(exported, tmp_path / f"{change.__name__}.pt2", {"models/model.json": in_program(change)})
        assert torch.equal(opener(path).module(batch), models["original"](batch))
    assert not trap.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.load",
        "_operator.call",
    ],
)
def test_torch_export_calls_nothing_but_tensor_operators(opener, exported, tmp_path, target):
    def change(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = rewritten(exported, tmp_path / "a.pt2", {"models/model.json": in_program(change)})
    with pytest.raises(InputError, match=f"it calls {target}"):
        opener(path)


def test_torch_export_with_pickled_weights_is_refused(opener, exported, tmp_path):
    def change(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    path = rewritten(exported, tmp_path / "a.pt2", {"weights_config.json": in_program(change)})
    with pytest.raises(InputError, match="stored as a pickle"):
        opener(path)


def test_torch_export_does_not_read_beyond_an_array(opener, exported, tmp_path):
    def change(config):
        next(iter(config["config"].values()))["tensor_meta"]["sizes"][0]["as_int"] = 10**6

    path = rewritten(exported, tmp_path / "a.pt2", {"weights_config.json": in_program(change)})
    with pytest.raises(InputError, match="beyond its array"):
        opener(path)


def test_damaged_archives_are_one_line(opener, exported, tmp_path):
    path = tmp_path / "cut.pt2"
    path.write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(InputError, match="--original"):
        opener(path)
    with pytest.raises(InputError, match="layout"):
        opener(rewritten(exported, tmp_path / "empty.pt2", {"models/model.json": lambda _: b"{}"}))


@pytest.mark.parametrize("freeze", [False, True])
def test_torchscript(opener, tmp_path, models, batch, freeze):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(models["original"], torch.rand(2, 1, 16, 16))
        torch.jit.save(torch.jit.freeze(traced) if freeze else traced, str(tmp_path / "model.pt"))
    opened = opener(tmp_path / "model.pt")
    assert opened.format == "TorchScript"
    assert_same(opened.module, models["original"], batch)


def test_torchscript_that_writes_files_is_refused(opener, tmp_path):
    class Saves(nn.Module):
        def forward(self, x):
            torch.save(x, "stolen")
            return x

    class Maps(nn.Module):
        def forward(self, x):
            return x + torch.from_file("made", True, 4)

    for model in (Saves(), Maps()):
        with pytest.raises(InputError, match="is not run from a file"):
            opener(script(model, tmp_path / "evil.pt", trace=False))


def test_torchscript_with_a_foreign_pickle_is_refused(opener, tmp_path, models):
    trap = tmp_path / "trap"
    good = script(models["original"], tmp_path / "good.pt")
    path = rewritten(good, tmp_path / "evil.pt", {"/data.pkl": lambda _: pickle.dumps(Evil(trap), protocol=2)})
    with pytest.raises(InputError, match=r"names (posix|nt) mkdir"):
        opener(path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["small_cnn", "retrace_pl.models.SmallCNN"])
def test_safetensors(opener, weights, models, batch, name):
    opened = opener(weights["original"], model_class=name, model_args={"width": 8})
    assert opened.format == "safetensors"
    assert opened.inputs.channels == 1
    assert torch.equal(opened.module(batch), models["original"](batch))


def test_safetensors_of_a_wrapped_module_and_a_class_file(opener, tmp_path, weights, models, batch):
    wrapped = {f"module.{name}": value for name, value in load_file(weights["original"]).items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    settings = tmp_path / "net.yaml"
    settings.write_text("class_path: retrace_pl.models.SmallCNN\ninit_args: {width: 8}\n")
    opened = opener(tmp_path / "wrapped.safetensors", model_class=str(settings))
    assert torch.equal(opened.module(batch), models["original"](batch))


def test_a_class_of_the_working_folder(opener, tmp_path, monkeypatch, batch):
    monkeypatch.chdir(tmp_path)
    Path("my_net_of_this_test.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self, classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(256, classes))\n"
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    save_file(model.state_dict(), "net.safetensors")
    opened = opener("net.safetensors", model_class="my_net_of_this_test.Net", model_args={"classes": 4})
    assert torch.equal(opened.module(batch), model(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--model-class"),
        ({"model_class": "small_cnm"}, "packaged are"),
        ({"model_class": "no_such_module_here.Net"}, "cannot be imported"),
        ({"model_class": "torch.optim.Adam"}, "no torch.nn.Module"),
        ({"model_class": "retrace_pl.models.Nothing"}, "has no Nothing"),
        ({"model_class": "small_cnn", "model_args": {"width": 16}}, "--model-args"),
        ({"model_class": "small_cnn", "model_args": {"depth": 3}}, "--model-args"),
        ({"model_class": "resnet8"}, "does not hold the weights"),
    ],
)
def test_wrong_classes_name_the_option(opener, weights, options, message):
    with pytest.raises(InputError, match=message):
        opener(weights["original"], **options)


def test_hugging_face_folder(opener, tmp_path, batch):
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10)
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 16, "width": 16}, "image_mean": [0.5], "image_std": [0.25]})
    )
    opened = opener(tmp_path / "model")
    assert opened.inputs.image_size == 16
    assert opened.inputs.mean == (0.5,)
    torch.testing.assert_close(only_tensor(opened.module(batch)), model(batch).logits)

    weights = next((tmp_path / "model").glob("*.safetensors"))
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    weights.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no safetensors"):
        opener(tmp_path / "model")
    shutil.move(tmp_path / "elsewhere", weights)
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    settings["auto_map"] = {"AutoModelForImageClassification": "code.Evil"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="code of its own"):
        opener(tmp_path / "model")


def test_what_gives_a_text_no_class_is_refused_by_what_it_is(opener, tmp_path):
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    config = DistilBertConfig(vocab_size=20, dim=8, hidden_dim=8, n_layers=1, n_heads=2, max_position_embeddings=8)
    DistilBertForMaskedLM(config).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="holds DistilBertForMaskedLM, which gives a text no class"):
        opener(tmp_path / "model")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "model.pt2", "model.safetensors"])
def test_a_pickle_is_never_executed(opener, tmp_path, name, legacy):
    trap = tmp_path / "trap"
    torch.save(
        {"weight": torch.zeros(2), "evil": Evil(trap)}, tmp_path / name, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(InputError, match=r"safetensors\.torch\.save_file"):
        opener(tmp_path / name, model_class="small_cnn")
    (tmp_path / name).write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(InputError, match="pickle"):
        opener(tmp_path / name, model_class="small_cnn")
    assert not trap.exists()


def test_what_is_no_model_says_so(opener, tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(InputError, match=r"--original: .*no torch\.export archive"):
        opener(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        opener(tmp_path / "missing.pt2")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        opener(tmp_path / "folder")
