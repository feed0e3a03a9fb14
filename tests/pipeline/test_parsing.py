import json
from pathlib import Path

import pytest
import torch
import yaml

from retrace_pl.audit import CONTROLS
from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import config_folders, find_config, parse
from retrace_pl.pipeline.processes import devices_here
from retrace_pl.pipeline.runner import stage_keys

AUDITS = sorted((config_folders()[0] / "audit").glob("*.yaml"))


def test_bare_name_finds_the_packaged_file_and_a_path_wins(tmp_path, monkeypatch):
    assert find_config("digits").name == "digits.yaml"
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("name: mine")
    assert find_config("digits") == Path("digits")


@pytest.mark.parametrize("written", [["--searcher", "ppo_mixture"], ["--searcher=ppo_mixture"]])
def test_packaged_parts_have_bare_names(written, tiny, tmp_path, monkeypatch):
    request = parse("audit", "", ["--config", str(tiny), *written])
    assert request.settings["searcher"]["class_path"].endswith("MixtureSearcher")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo_mixture").write_text("class_path: RandomSearcher\n")  # the user's own goes first
    own = parse("audit", "", ["--config", str(tiny), *written])
    assert own.settings["searcher"]["class_path"].endswith("RandomSearcher")


def test_bare_names_reach_into_folders_and_nested_settings(tiny):
    options = ["--unlearning", "digits/salun", "--classifier.model", "resnet8", "--attack", "max_diff"]
    settings = parse("audit", "", ["--config", str(tiny), *options]).settings
    assert settings["unlearning"]["class_path"].endswith("SalUn")
    assert settings["classifier"]["model"]["class_path"].endswith("ResNetCIFAR")
    assert settings["attack"]["class_path"].endswith("MaxDiff")
    with pytest.raises(InputError, match=r"--searcher nobody is .* packaged files are cem, cma_es, .*ppo_mixture"):
        parse("audit", "", ["--config", str(tiny), "--searcher", "nobody"])


def test_what_is_too_long_for_a_file_is_none(tiny):
    part = {"class_path": "retrace_pl.unlearning.NegativeGradient", "init_args": {"epochs": 1, "lr": 0.25}}
    long = json.dumps(part) + " " * 300
    for options in ([f"--unlearning={long}"], ["--unlearning", long]):
        assert parse("audit", "", ["--config", tiny, *options]).config.unlearning.lr == 0.25
    with pytest.raises(InputError, match=r"--config a+: no such file"):
        find_config("a" * 300)
    with pytest.raises(InputError, match="searcher"):
        parse("audit", "", ["--config", tiny, "--searcher", "a" * 300])


def test_unknown_name_lists_what_there_is():
    with pytest.raises(InputError, match=r"--config nothing: .*packaged are: .*digits"):
        find_config("nothing")


@pytest.mark.parametrize("file", AUDITS, ids=lambda file: file.stem)
@pytest.mark.parametrize("access", ["black", "gray", "white"])
def test_every_packaged_audit_parses_in_every_variant(file, access, monkeypatch):
    monkeypatch.setenv("RETRACE_SHARED_DATA", "unused")
    request = parse("audit", "", ["--config", str(file), "--access", access])
    assert request.config.access == access
    assert request.config.queries > 0
    assert request.output == Path("runs") / file.stem


def test_short_class_names_replace_the_whole_setting(tiny):
    config = parse("audit", "", ["--config", tiny, "--unlearning", "Identity", "--searcher", "CEMSearcher"]).config
    assert type(config.unlearning).__name__ == "Identity"
    assert type(config.searcher).__name__ == "CEMSearcher"


def test_single_settings_override_the_file(tiny):
    config = parse("audit", "", ["--config", tiny, "--unlearning.lr", "0.5", "--latent.tau", "0.25"]).config
    assert (config.unlearning.lr, config.latent.tau) == (0.5, 0.25)


def test_resolved_configuration_parses_to_the_same_settings(tiny, tmp_path):
    first = parse("audit", "", ["--config", tiny])
    (tmp_path / "config.yaml").write_text(first.text)
    second = parse("audit", "", ["--config", str(tmp_path / "config.yaml")])
    assert stage_keys(first.settings) == stage_keys(second.settings)


def test_packaged_parts_give_the_keys_of_the_same_settings_written_out(tmp_path):
    first = parse("audit", "", ["--config", "digits"])
    (tmp_path / "config.yaml").write_text(first.text)
    second = parse("audit", "", ["--config", str(tmp_path / "config.yaml")])
    assert stage_keys(first.settings) == stage_keys(second.settings)


def test_the_cache_is_no_setting_of_the_audit(tiny, tmp_path):
    plain, cached = (parse("audit", "", ["--config", tiny, *more]) for more in ([], ["--cache", str(tmp_path)]))
    assert (plain.cache, cached.cache) == (None, tmp_path)
    assert stage_keys(plain.settings) == stage_keys(cached.settings)
    assert plain.text == cached.text


def test_keys_change_from_the_stage_on_that_a_setting_belongs_to(tiny):
    base = stage_keys(parse("audit", "", ["--config", tiny]).settings)
    black = stage_keys(parse("audit", "", ["--config", tiny, "--access", "black"]).settings)
    assert [base[stage] == black[stage] for stage in base] == [True, True, True, False, False, False]


def test_keys_know_what_decides_the_batch_of_a_step_and_not_who_computes_it(tiny):
    def keys(*options):
        return stage_keys(parse("audit", "", ["--config", tiny, *options]).settings)

    batches = [
        keys(),
        keys("--trainer.devices=2"),
        keys("--trainer.devices=4"),
        keys("--trainer.num_nodes=2"),
        keys("--trainer.accumulate_grad_batches=2"),
        keys("--trainer.devices=2", "--trainer.accumulate_grad_batches=2"),
        keys("--trainer.devices=2", "--classifier.batch_size=16", "--generator.batch_size=16"),
    ]
    for stage in batches[0]:
        assert len({found[stage] for found in batches}) == len(batches), stage
    same = ("--trainer.devices=2", "--trainer.strategy=fsdp"), ("--trainer.devices=2", "--trainer.accelerator=gpu")
    assert all(keys(*options) == batches[1] for options in same)
    assert keys("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=ddp") == batches[0]


@pytest.mark.parametrize("count", [1, 4])
def test_all_devices_become_a_number_that_the_run_folder_keeps(tiny, monkeypatch, count):
    monkeypatch.setattr("retrace_pl.pipeline.parsing.devices_here", {"auto": count}.__getitem__)
    options = ["--config", tiny, "--trainer.accelerator=auto"]
    everything, number = (parse("audit", "", [*options, f"--trainer.devices={n}"]) for n in (-1, count))
    assert everything.config.trainer.devices == count
    assert everything.text == number.text
    assert stage_keys(everything.settings) == stage_keys(number.settings)


def test_the_number_of_all_devices_is_that_of_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [devices_here(accelerator) for accelerator in ("auto", "gpu", "cuda")] == [3, 3, 3]


def test_all_devices_of_a_machine_without_any_are_refused(tiny, capsys):
    options = ["--config", tiny, "--trainer.devices=-1", "--trainer.accelerator=cpu"]
    assert main(["audit", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "trainer.devices is -1" in error
    assert "say how many processes" in error


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--access", "grey"], "--access"),
        (["--unlearnin.lr", "3"], "--unlearnin.lr"),
        (["--unlearning.learning_rate", "3"], "unlearning"),
        (["--unlearning", "os.system"], "--unlearning"),
        (["--searcher", "NoSuchSearcher"], "--searcher"),
        (["--queries", "many"], "--queries"),
        (["--trainer.devices", "0"], "trainer.devices is 0"),
        (["--config", "missing.yaml"], "--config missing.yaml"),
        (["--audit.controls", "[idenity]"], "idenity"),
        (["--data.forget_class", "12"], "12"),
        (["--data.image_size", "20"], "image_size"),
        (["--unlearning.lr", "-1"], "lr"),
        (["--latent.tau", "-1"], "tau"),
        (["--searcher.algorithm", "os.system"], "searcher"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, named, tiny, tmp_path, capsys):
    code = main(["audit", "--config", tiny, "--output", str(tmp_path / "run"), "--quiet", *options])
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert named in shown
    assert shown.count("\n") == 1
    assert "Traceback" not in shown


def test_missing_configuration_says_what_to_do(capsys):
    assert main(["audit"]) == 2
    assert "--config digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "kind"),
    [
        ("--unlearning", "digits/nothing", "unlearning"),
        ("--unlearning", "missing.yaml", "unlearning"),
        ("--searcher", "NoSuch", "searchers"),
        ("--classifier.model", "NoSuch", "models"),
    ],
)
def test_an_unknown_class_is_answered_with_the_command_that_lists_them(option, name, kind, tiny):
    with pytest.raises(
        InputError, match=rf"^{option} {name} is neither .*`retrace list {kind}` prints the classes, packaged"
    ):
        parse("audit", "", ["--config", tiny, option, name])


def test_damaged_yaml_is_one_line(tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text("data: [1, 2\n  x: }")
    assert main(["audit", "--config", str(file)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "bad.yaml" in shown or "config" in shown


def test_yaml_cannot_construct_objects(tmp_path, capsys):
    file = tmp_path / "evil.yaml"
    file.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path / 'executed'}']\n")
    assert main(["audit", "--config", str(file)]) == 2
    assert not (tmp_path / "executed").exists()


def test_packaged_files_are_plain_yaml():
    for folder in config_folders():
        for file in folder.rglob("*.yaml"):
            assert yaml.safe_load(file.read_text()) is not None, file


def test_an_option_may_have_the_configurations_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = parse("audit", "", ["--config", "digits", "--output", "digits", "--name", "digits"])
    assert request.output == Path("digits")
    assert request.config.name == "digits"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--queries", "0"], "queries is 0"),
        (["--audit.repeats", "0"], "audit.repeats is 0"),
        (["--audit.bootstrap_samples", "0"], "audit.bootstrap_samples is 0"),
        (["--audit.level", "1.5"], "audit.level is 1.5"),
        (["--audit.controls", "[idenity]"], "did you mean 'identity'"),
        (["--trainer.threads", "0"], "trainer.threads is 0"),
        (["--classifier.epochs", "0"], "epochs is 0"),
        (["--classifier.label_smoothing", "1"], "label_smoothing"),
        (["--generator.batch_size", "0"], "generator.batch_size is 0"),
        (["--generator.task.lrr", "3"], "generator.task has no setting lrr"),
        (["--attack.searcher", "CEMSearcher"], "attack.searcher"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_stage(options, named, tiny):
    with pytest.raises(InputError, match=named):
        parse("audit", "", ["--config", tiny, *options])


def test_all_controls_are_those_of_the_registry(tiny):
    request = parse("audit", "", ["--config", tiny, "--audit.controls", "[all]"])
    assert request.config.audit.controls == list(CONTROLS)


def test_an_audit_rules_out_training_noise_unless_it_is_told_otherwise():
    for name in ("digits", "fashion_mnist", "cifar100_resnet18"):
        controls = parse("audit", "", ["--config", name]).config.audit.controls
        assert set(controls) == {"identity", "null", "prior", "matched_retrain", "holdout"}


def test_controls_by_other_names_train_the_same_models(tiny):
    controls = "[holdout, matched-retrain, Identity, prior]"
    request = parse("audit", "", ["--config", tiny, "--audit.controls", controls])
    assert set(request.config.audit.controls) == {"identity", "prior", "matched_retrain", "holdout"}
    usual = parse("audit", "", ["--config", tiny])
    assert stage_keys(request.settings)["unlearn"] == stage_keys(usual.settings)["unlearn"]


def test_optimisers_and_schedulers_are_settings_of_every_training(tiny):
    options = ["--generator.optimizer", "torch.optim.RMSprop", "--generator.scheduler", "ExponentialLR"]
    options += [
        "--generator.scheduler.gamma",
        "0.9",
        "--unlearning.scheduler",
        "StepLR",
        "--unlearning.scheduler.step_size",
        "1",
    ]
    config = parse("audit", "", ["--config", tiny, *options]).config
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = config.generator.optimizer([parameter])
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert config.generator.scheduler(optimizer).gamma == 0.9
    assert config.unlearning.scheduler(optimizer).step_size == 1
