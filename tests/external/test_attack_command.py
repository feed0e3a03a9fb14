"""`retrace attack --original A --unlearned B --public DATA` from the command line to the report."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from retrace_pl.cli import main
from retrace_pl.external import searches
from retrace_pl.models import DCGAN
from retrace_pl.traces import ModelPair

TINY = [
    "--public=digits",
    "--exclude-classes=3",
    "--public-size=160",
    "--queries=96",
    "--repeats=2",
    "--searcher=RandomSearcher",
    "--attack.init_args.top_k=12",
    "--generator.epochs=2",
    "--generator.model=dcgan_16",
    "--generator.model.init_args.width=8",
    "--bootstrap_samples=100",
    "--trainer.accelerator=cpu",
    "--trainer.threads=1",
]
MODELS = ["--model-class=small_cnn", '--model-args={"width": 8}', "--image-size=16"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A generator that was never trained, for tests of everything but its training."""
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(DCGAN((1, 16, 16), latent_dim=64, width=8, discriminator_width=32).state_dict(), path)
    return [f"--generator-weights={path}"]


def pair(weights, *roles):
    return [f"--{role}={weights[role]}" for role in ("original", "unlearned", *roles)]


def run(arguments, capsys):
    code = main(["attack", *arguments, "--quiet", "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out)


def refused(arguments, capsys):
    """Message of a command line that is refused: one line, exit code 2."""
    assert main(["attack", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert len([line for line in error.splitlines() if line.startswith("retrace: error:")]) == 1
    return error.splitlines()[-1]


def test_two_models_and_nothing_else(weights, tmp_path, capsys):
    found = run([*pair(weights), *MODELS, *TINY, f"--output={tmp_path / 'run'}"], capsys)
    metrics = found["metrics"]
    assert metrics["verdict"] == "not_judged"
    assert metrics["verdict_reason"].startswith("No deleted data was given")
    assert metrics["inferences"]["class_inference"]["answer"]["per_class"]["ranking"][0] == 3
    assert set(metrics["controls"]) == {"prior", "identity"}
    assert metrics["controls"]["identity"]["max_trace"] == 0
    assert sum(metrics["gaps"]["attack"]["labels"]) == 24
    assert 0 < metrics["gaps"]["prior"]["gap"] < 1.42
    assert metrics["attack"]["distribution"]["diversity"] > 0
    assert metrics["setting"]["access"] == "white"
    candidates = load_file(tmp_path / "run" / "candidates.safetensors")
    assert candidates["attack-0/inputs"].shape == (12, 1, 16, 16)
    assert len(candidates["attack-1/pool_scores"]) == 96
    for name in ("report.html", "overview.png", "config.yaml", "evaluation.safetensors", "curves.json"):
        assert (tmp_path / "run" / name).is_file(), name
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Not judged" in page
    assert "Recomputing the verdict" not in page

    assert main(["attack", f"--config={tmp_path / 'run' / 'config.yaml'}", f"--output={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("done already") == 5
    assert "not_judged" in shown.out


def test_deleted_images_and_an_evaluator_give_a_verdict(weights, deleted_file, tmp_path, capsys, prior):
    arguments = [
        *pair(weights, "null"),
        f"--reference={weights['unlearned']}",
        f"--evaluator={weights['null']}",
        f"--deleted={deleted_file / 'deleted.npz'}",
        f"--heldout={deleted_file / 'heldout.npz'}",
        "--rivals+=CEMSearcher",
        "--rivals+=GradientAscentSearcher",
        "--access=black",
        *prior,
    ]
    metrics = run([*arguments, *MODELS, *TINY, f"--output={tmp_path / 'run'}"], capsys)["metrics"]
    assert metrics["verdict"] in ("leak", "no_evidence")
    assert set(metrics["controls"]) == {"prior", "matched_retrain", "null", "identity"}
    assert set(metrics["rivals"]) == {"cem", "gradient_ascent"}
    assert metrics["rivals"]["gradient_ascent"]["applicable"] is False
    assert "needs access=white" in metrics["rivals"]["gradient_ascent"]["reason"]
    assert metrics["setting"]["deleted_classes"] == ["3"]
    assert metrics["setting"]["public_includes_deleted"] is False
    assert metrics["setting"]["signals"] == ["prediction"]
    assert metrics["original"]["forget_acc"] > 0.8
    assert metrics["unlearning"]["forget_acc"] == 0
    assert metrics["calibration"]["auroc"]["score"] > 0.9
    for name in ("mse", "pairwise_mse", "ssim", "cs", "sr_mse", "sr_original", "sr_oracle"):
        assert metrics["attack"]["distribution"][name] is not None, name
    assert metrics["leakage"]["excess"]["metric"] == "sr_oracle"
    # the reference is the unlearned model itself, and the searches have the same seeds
    assert metrics["leakage"]["avoidable"]["value"] == 0
    assert metrics["leakage"]["record"] is not None
    for name in ("score", "likeness"):
        assert metrics["significance"][name]["null_pairs"] == 1
        assert metrics["significance"][name]["candidates"] == 24
    assert metrics["floors"]["heldout_sr_oracle"] > 0.8


def test_deleted_images_without_labels_give_distances(weights, deleted_file, tmp_path, capsys, prior):
    with np.load(deleted_file / "deleted.npz") as archive:
        np.savez(tmp_path / "deleted.npz", x=archive["x"])
    arguments = [
        *pair(weights),
        f"--deleted={tmp_path / 'deleted.npz'}",
        *MODELS,
        *TINY,
        f"--output={tmp_path / 'run'}",
    ]
    metrics = run(arguments, capsys)["metrics"]
    assert metrics["leakage"]["excess"]["metric"] == "sr_mse"
    assert metrics["attack"]["distribution"].get("sr_original") is None
    assert metrics["setting"]["deleted_classes"] == []


def test_an_interrupted_run_keeps_its_finished_searches(weights, tmp_path, capsys, monkeypatch, prior):
    arguments = [*pair(weights), *MODELS, *TINY, *prior, f"--output={tmp_path / 'run'}", "--quiet", "--json"]
    done = []
    search = searches._search

    def interrupted(run_, models, planned, seed):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(planned.label)
        return search(run_, models, planned, seed)

    monkeypatch.setattr(searches, "_search", interrupted)
    assert main(["attack", *arguments]) == 130
    capsys.readouterr()
    monkeypatch.setattr(searches, "_search", lambda *given: (done.append(given[2].label), search(*given))[1])
    run(arguments[:-2], capsys)
    assert done == ["attack-0", "attack-1", "identity-0"]


@pytest.fixture
def services(serve, models):
    return {name: serve(models[name]) for name in ("original", "unlearned")}


def endpoints(services):
    return [f"--{name}={service.url}" for name, service in services.items()]


def test_endpoints_are_asked_once_and_a_failed_run_goes_on(services, tmp_path, capsys, prior):
    common = [*endpoints(services), *TINY, *prior, "--image-size=16", "--channels=1", "--repeats=1"]
    common += ["--endpoint-retries=1", "--endpoint-batch=32", f"--output={tmp_path / 'run'}"]
    after_the_public_images = [None] * 7
    services["unlearned"].script = [*after_the_public_images, *[(503, {"Retry-After": "0"}, "gone")] * 2]
    assert main(["attack", *common, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "gave no answer in 2 attempts, at last: status 503: gone" in error
    assert len(error.strip().splitlines()) == 1

    services["original"].script = ["drop", None, (429, {"Retry-After": "0"}, "")]
    metrics = run(common, capsys)["metrics"]
    assert metrics["setting"]["access"] == "black"
    assert metrics["models"]["unlearned"]["format"] == "HTTP endpoint"
    assert "of at most" in metrics["budget"]["sent_to_unlearned"]
    for name, service in services.items():
        answered = service.answered
        repeated = [count for count in answered.values() if count > 1]
        assert repeated == [2] * 8, name  # the first batch alone, to see whether the endpoint repeats itself
        assert len(answered) > 160 + 96

    before = {name: service.requests for name, service in services.items()}
    for stage in ("attack", "evaluate"):  # the same searches again: every answer is there already
        (tmp_path / "run" / "stages" / f"{stage}.json").unlink()
    again = run(common, capsys)["metrics"]
    assert {name: service.requests for name, service in services.items()} == before
    assert again["attack"] == metrics["attack"]


def test_ways_to_run_the_models_reach_them(weights, tmp_path, capsys, monkeypatch, prior):
    asked = []

    class Watched(ModelPair):
        def __init__(self, *arguments, **options):
            asked.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(searches, "ModelPair", Watched)
    ways = ["--traces.memory_format=channels_last", "--traces.autocast=bfloat16"]
    run([*pair(weights), *MODELS, *TINY, *prior, *ways, "--repeats=1", f"--output={tmp_path / 'run'}"], capsys)
    assert asked[0] == {"memory_format": "channels_last", "autocast": "bfloat16", "compile": False}


def test_python_functions(models, tmp_path, capsys, monkeypatch, prior):
    (tmp_path / "service_of_this_test.py").write_text(
        "MODELS = {}\ndef predict(x):\n    import torch\n    with torch.no_grad():\n"
        "        return MODELS['original'](torch.from_numpy(x)).softmax(1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import service_of_this_test

    service_of_this_test.MODELS.update(models)
    both = [f"--{role}=python:service_of_this_test:predict" for role in ("original", "unlearned")]
    common = [*TINY, *prior, "--image-size=16", "--channels=1", "--repeats=1", f"--output={tmp_path / 'run'}"]
    metrics = run([*both, *common], capsys)["metrics"]
    assert metrics["models"]["original"]["format"] == "Python callable"
    assert metrics["verdict"] == "no_evidence"  # a model beside itself leaves nothing to follow
    del sys.modules["service_of_this_test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--original=A"], "unlearned"),
        (["--image-size=2"], "--image-size"),
        (["--image-size=16", "--channels=3"], "--channels: 3 by the command line, but --original was made for 1"),
        (["--mean=0.5"], "--mean"),
        (["--outputs=probabilities"], "--outputs: probabilities was declared"),
        (["--public=fashion"], "--public: fashion is no folder"),
        (["--exclude-classes=bag"], "--exclude-classes"),
        (["--deleted=nowhere.npz"], "--deleted"),
        (["--deleted-classes=three"], "--deleted-classes"),
        (["--heldout=digits"], "--deleted"),
        (["--evaluator=x.safetensors"], "--deleted"),
        (["--public-size=1"], "--public-size"),
        (["--queries=0"], "--queries"),
        (["--repeats=0"], "--repeats"),
        (["--queries=many"], "queries"),
        (["--generator-size=20"], "image_size|generator"),
        (["--generator-weights=nowhere.safetensors"], "--generator-weights"),
        (["--searcher=Nobody"], "searcher"),
        (["--traces.fit_weights=true"], "fit_weights"),
        (["--trainer.devices=2"], "devices"),
        (["--input-range=0"], "--input-range"),
        (["--std=a"], "--std"),
        (["--no-such-option=1"], "no-such-option"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments, message, weights, tmp_path, capsys):
    given = [] if "--original=A" in arguments else pair(weights)
    common = [*MODELS[:2], *([] if any("image-size" in argument for argument in arguments) else MODELS[2:])]
    error = refused([*given, *common, *TINY, f"--output={tmp_path / 'run'}", *arguments], capsys)
    assert any(part in error for part in message.split("|")), error


def test_the_image_size_must_be_known(weights, tmp_path, capsys):
    error = refused([*pair(weights), *MODELS[:2], *TINY, f"--output={tmp_path / 'run'}"], capsys)
    assert "--image-size" in error


def test_pickles_are_refused_with_the_remedy(models, weights, tmp_path, capsys):
    torch.save(models["original"].state_dict(), tmp_path / "model.pt")
    arguments = [f"--original={tmp_path / 'model.pt'}", f"--unlearned={weights['unlearned']}", *MODELS, *TINY]
    error = refused([*arguments, f"--output={tmp_path / 'run'}"], capsys)
    assert "save_file" in error


def test_a_format_that_allows_less_limits_the_access(services, weights, tmp_path, capsys):
    arguments = [f"--original={weights['original']}", f"--unlearned={services['unlearned'].url}", *MODELS, *TINY]
    error = refused([*arguments, "--access=white", f"--output={tmp_path / 'run'}"], capsys)
    assert "--access: white needs more than --unlearned gives: a HTTP endpoint allows black access" in error
    assert services["unlearned"].requests == 0


def test_a_budget_below_the_plan_is_refused_before_anything_is_asked(services, tmp_path, capsys):
    arguments = [*endpoints(services), *TINY, "--image-size=16", "--channels=1", "--endpoint-budget=300"]
    error = refused([*arguments, f"--output={tmp_path / 'run'}"], capsys)
    assert "--endpoint-budget: 300 is below the" in error
    assert services["original"].requests == 0


def test_endpoints_with_wrong_answers_name_the_option(services, tmp_path, capsys):
    services["unlearned"].script = [lambda rows: [[3 * value for value in row] for row in rows]]
    arguments = [*endpoints(services), *TINY, "--image-size=16", "--channels=1", f"--output={tmp_path / 'run'}"]
    assert "--unlearned: http" in refused(arguments, capsys)
    services["unlearned"].script = [lambda rows: [[*row, 0.0] for row in rows]] * 2
    assert "has 11 classes and --original has 10" in refused(
        [*arguments[:-1], f"--output={tmp_path / 'other'}"], capsys
    )


def test_help_explains_both_forms(capsys):
    for arguments, expected in ((["--help"], "two forms"), (["--original", "--help"], "--model-class")):
        with pytest.raises(SystemExit) as stopped:
            main(["attack", *arguments])
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


def test_without_the_option_it_is_the_stage(tmp_path, capsys):
    assert main(["attack", "--config", "digits", "--output", str(tmp_path / "run"), "--quiet"]) == 1
    assert "needs stage pretrain" in capsys.readouterr().err
