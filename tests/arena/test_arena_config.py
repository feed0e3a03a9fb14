import json

import pytest
import yaml

from retrace_pl.arena.choices import choose_attacks, choose_methods
from retrace_pl.arena.config import ArenaConfig, parse
from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import config_folders

PRESETS = config_folders()[0] / "unlearning" / "digits"


@pytest.mark.parametrize("name", [file.stem for file in sorted((config_folders()[0] / "arena").glob("*.yaml"))])
def test_every_packaged_arena_lists_its_cells(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RETRACE_DATA", "unused")
    assert main(["arena", "--config", name, "--output", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    assert {cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {"to do"}
    assert not (tmp_path / "out").exists()


def test_command_line_overrides_every_kind_of_setting(tiny):
    options = [
        "--seeds=[4, 5]",
        "--methods=[identity]",
        "--attacks=[cem]",
        "--overrides.queries=64",
        "--gate.mia_margin=1",
    ]
    options += ["--access=[black, white]", "--slurm.partition=long", "--slurm.extra={qos: low}", "--strengths=[0.5]"]
    request = parse("", ["--config", str(tiny), *options, "--output", "here", "--jobs", "3"])
    config = request.config
    assert (config.seeds, config.methods, config.attacks, config.strengths) == ([4, 5], ["identity"], ["cem"], [0.5])
    assert (config.overrides["queries"], config.overrides["audit.repeats"]) == (64, 1)
    assert (config.gate.mia_margin, config.slurm.partition, config.slurm.extra) == (1.0, "long", {"qos": "low"})
    assert (request.jobs, request.output.name, request.cache) == (3, "here", request.output / "cache")
    assert request.settings["gate"] == {"retain_margin": 0.05, "mia_margin": 1.0, "forget_margin": 0.1}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seeds=[]"], "seeds is empty"),
        (["--seeds=[1, 1]"], "seeds holds 1 twice"),
        (["--seeds=[-1]"], "seeds holds -1"),
        (["--seeds=3"], "--seeds"),
        (["--strengths=[-1]"], "strengths"),
        (["--access=[purple]"], "access"),
        (["--attacks=[nothing]"], "attacks: there is no searcher 'nothing'; packaged are cem"),
        (["--attacks={x: {queries: 3}}"], "attacks.x.queries"),
        (["--attacks={x: {searcher: no.yaml}}"], "attacks.x.searcher: there is no file no.yaml"),
        (["--methods=[nothing]"], "methods: there is no method or preset 'nothing'"),
        (["--methods=[no/where.yaml]"], "methods: there is no file no/where.yaml"),
        (["--methods=[identity, identity]"], "methods: there are two called 'identity'"),
        (["--methods=all"], "presets"),
        (["--methods=[{name: x}]"], "class_path"),
        (["--methods=[{name: x, class_path: os.system}]"], "methods: x:"),
        (["--methods=[{name: x, class_path: Identity, init_args: {lrr: 1}}]"], "lrr"),
        (["--methods=[{name: x, class_path: Identity, init_args: {lr: -1}}]"], "methods: x: Identity.lr is -1"),
        (["--presets=nowhere"], "presets: there is no folder 'nowhere'"),
        (["--methods=[{class_path: Identity, lr: 3}]"], "methods: Identity: there is no 'lr' beside `class_path`"),
        (["--methods=[{name: '', class_path: Identity}]"], "methods: the `name` of Identity is empty"),
        (["--overrides.output=elsewhere"], "overrides.output: no setting of an audit"),
        (["--overrides.cache=elsewhere"], "overrides.cache: no setting of an audit"),
        (["--overrides.config=digits"], "overrides.config: no setting of an audit"),
        (["--overrides.seed=3"], "overrides.seed: `seeds` decides"),
        (["--overrides={unlearning.lr: 3}"], "overrides.unlearning.lr: `methods` decides"),
        (["--overrides.querys=3"], "querys"),
        (["--overrides={audit.controls: [prior]}"], "overrides.audit.controls: matched_retrain is missing"),
        (["--audit=nothing"], "audit: nothing"),
        (["--gate.retain_margin=2"], "gate.retain_margin is 2"),
        (["--level=1"], "level is 1"),
        (["--bootstrap_samples=0"], "bootstrap_samples is 0"),
        (["--strengths=[1.0000001, 1.0000002]"], "strengths"),
        (["--slurm.memory_gb=.nan"], "slurm.memory_gb is nan"),
        (["--slurm.time=0"], "slurm.time is 0"),
        (["--slurm.partitions=x"], "--slurm.partitions"),
        (["--jobs=0"], "--jobs is 0"),
        (["--cell=nothing"], "--cell nothing"),
        (["--cell=nothing", "--dry-run"], "--cell nothing"),
        (["--cell=nothing", "--launcher=slurm"], "--launcher slurm: --cell runs in this process"),
        (["--forget_classes=[3, 12]"], "forget_classes: there is no class 12"),
        (["--launcher=slurm"], "--launcher slurm: there is no `sbatch`"),
        (["--launcher=cloud"], "--launcher"),
        (["--methos=all"], "--methos"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, named, arena, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, wherever the tests run
    assert arena("--output", tmp_path / "out", *options) == 2
    shown = capsys.readouterr().err
    assert named in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("class_path: NegativeGradient\ninit_args: {lrr: 3}\n", "Option 'lrr' is not accepted"),
        ("class_path: [1\n", "mine.yaml cannot be read"),
        ("", "mine.yaml holds no settings"),
    ],
)
def test_a_method_file_that_cannot_be_used_is_named(text, named, arena, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    assert arena("--output", tmp_path / "out", "--dry-run", f"--methods=[{tmp_path / 'mine.yaml'}]") == 2
    shown = capsys.readouterr().err
    assert "methods: mine: " in shown
    assert named in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("text", ["", "- one\n", "audit: [1\n"])
def test_a_damaged_configuration_is_named(text, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["arena", "--config", str(tmp_path / "mine.yaml")]) == 2
    shown = capsys.readouterr().err
    assert "mine.yaml" in shown
    assert shown.count("\n") == 1


def test_missing_configuration_lists_the_packaged_ones(capsys):
    assert main(["arena", "--config", "nothing"]) == 2
    assert "digits" in capsys.readouterr().err


def test_all_stands_for_the_presets_of_a_folder_and_keeps_what_is_named_before(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("one", "two"):
        (tmp_path / "mine" / f"{name}.yaml").write_text("class_path: retrace_pl.unlearning.Identity\n")
    config = ArenaConfig(audit="digits", presets="mine", methods=["retrain", "two", "all"])
    found = choose_methods(config, tmp_path)
    assert [(method.name, method.class_name) for method in found] == [
        ("retrain", "Retrain"),
        ("two", "Identity"),
        ("one", "Identity"),
    ]


def test_a_tuned_preset_goes_before_the_published_settings(tmp_path):
    tuned = choose_methods(ArenaConfig(audit="digits", presets="digits", methods=["negative_gradient"]), tmp_path)
    published = choose_methods(ArenaConfig(audit="digits", methods=["negative_gradient"]), tmp_path)
    own = yaml.safe_load((PRESETS / "negative_gradient.yaml").read_text())["init_args"]
    assert own.items() <= tuned[0].settings["init_args"].items()
    assert tuned != published


def test_strength_multiplies_the_presets_own(tmp_path):
    entry = {"class_path": "retrace_pl.unlearning.NegativeGradient", "init_args": {"strength": 0.5}}
    [method] = choose_methods(ArenaConfig(audit="digits", methods=[entry]), tmp_path)
    assert method.name == "NegativeGradient"
    assert method.at(4)["init_args"]["strength"] == 2
    assert method.settings["init_args"]["strength"] == 0.5


def test_settings_are_complete_so_that_nothing_of_the_base_audit_remains(tmp_path):
    [method] = choose_methods(ArenaConfig(audit="digits", methods=["identity"]), tmp_path)
    assert method.settings["init_args"]["epochs"] == 0
    assert "scheduler" in method.settings["init_args"]


def test_an_attack_named_like_a_packaged_searcher_is_that_searcher(tmp_path):
    found = choose_attacks(ArenaConfig(audit="digits", attacks={"random": None, "wide": {"searcher": "cem"}}), tmp_path)
    classes = [attack.overrides["searcher"]["class_path"].rpartition(".")[2] for attack in found]
    assert classes == ["RandomSearcher", "CEMSearcher"]


def test_an_attack_may_replace_the_selection_too(tmp_path):
    reconstruct = {"class_path": "retrace_pl.attacks.ReTrace", "init_args": {"top_k": 8}}
    config = ArenaConfig(audit="digits", attacks={"few": {"searcher": "CEMSearcher", "attack": reconstruct}})
    [attack] = choose_attacks(config, tmp_path)
    assert attack.overrides["attack"]["init_args"]["top_k"] == 8
    with pytest.raises(InputError, match=r"attacks\.bad\.attack"):
        choose_attacks(ArenaConfig(audit="digits", attacks={"bad": {"attack": "CEMSearcher"}}), tmp_path)
