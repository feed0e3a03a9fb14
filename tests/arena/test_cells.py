import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from retrace_pl.arena.cells import in_good_order, make_plan
from retrace_pl.arena.config import parse
from retrace_pl.errors import InputError


def plan(tiny, *options):
    request = parse("", ["--config", str(tiny), *options])
    return make_plan(request.config, request.folder)


def test_every_combination_is_one_cell_with_a_readable_name(tiny):
    options = ["--seeds=[0, 1]", "--forget_classes=[3, 4]", "--access=[black, white]", "--strengths=[0.5, 2]"]
    cells = plan(tiny, *options, "--attacks=[random, cem]").cells
    assert len(cells) == len({cell.id for cell in cells}) == 2 * 2 * 2 * 2 * 2 * 2
    assert len({cell.settings_hash for cell in cells}) == len(cells)
    assert "mild-x0.5-seed1-class4-white-cem" in {cell.id for cell in cells}


def test_a_cell_sets_seed_class_access_method_and_attack_of_its_audit(tiny):
    cell = plan(tiny, "--seeds=[7]", "--strengths=[2]").find("mild-x2-seed7-class3-black-random")
    assert cell.overrides["seed"] == cell.overrides["data.seed"] == 7
    assert cell.overrides["data.forget_class"] == 3
    assert cell.overrides["access"] == "black"
    assert cell.overrides["unlearning"]["init_args"]["strength"] == 2
    assert cell.overrides["searcher"]["class_path"] == "retrace_pl.searchers.RandomSearcher"
    assert cell.overrides["queries"] == 128
    assert json.loads(json.dumps(cell.overrides)) == cell.overrides


def test_the_first_cells_make_what_the_others_share(tiny):
    cells = plan(tiny, "--seeds=[0, 1]", "--access=[black, white]").cells
    assert [(cell.seed, cell.access) for cell in cells[:4]] == [(0, "black"), (1, "black"), (0, "white"), (1, "white")]
    assert {cell.method for cell in cells[:4]} == {"retain_finetune"}
    assert in_good_order(list(cells)) == list(cells)


def test_names_and_order_do_not_change_with_what_else_is_run(tiny):
    few, many = plan(tiny), plan(tiny, "--seeds=[0, 1]")
    assert {cell.id: cell.settings_hash for cell in few.cells}.items() <= {
        cell.id: cell.settings_hash for cell in many.cells
    }.items()
    assert few.cells == plan(tiny).cells


def test_only_settings_behind_the_figures_change_the_hash(tiny, tmp_path):
    other_method = tmp_path / "audit.yaml"
    settings = yaml.safe_load((tiny.parent / "digits_tiny.yaml").read_text())
    settings |= {"unlearning": {"class_path": "retrace_pl.unlearning.Identity"}, "access": "gray", "name": "other"}
    other_method.write_text(yaml.safe_dump(settings))

    def hashes(*options):
        return [cell.settings_hash for cell in plan(tiny, *options).cells]

    assert hashes("--overrides={trainer.threads: 2}", "--name=other", "--gate.mia_margin=1") == hashes(
        "--overrides={trainer.threads: 1}"
    )
    assert hashes("--audit", str(other_method)) == hashes()
    assert hashes("--overrides={queries: 64}")[0] != hashes("--overrides={queries: 65}")[0]
    assert hashes("--overrides={baselines: [], inferences: []}") == hashes("--overrides={}")
    assert hashes("--overrides={baselines: [ReTrace]}")[0] != hashes("--overrides={baselines: []}")[0]


def test_without_forget_classes_the_audit_decides_what_is_deleted(tiny):
    cell = plan(tiny, "--forget_classes=[]").cells[0]
    assert cell.id == "retain_finetune-x1-seed0-black-random"
    assert "data.forget_class" not in cell.overrides


def test_forget_classes_need_an_audit_that_deletes_a_class(tiny):
    records = '--overrides={"data.forget_fraction": 0.1, "data.forget_class": null}'
    with pytest.raises(InputError, match=r"forget_class"):
        plan(tiny, records)


def test_anchors_run_once_whatever_the_strengths(tiny):
    cells = plan(tiny, "--methods=[retrain, identity, retain_finetune]", "--strengths=[0.5, 2]").cells
    assert sorted((cell.method, cell.strength) for cell in cells) == [
        ("identity", 1),
        ("retain_finetune", 0.5),
        ("retain_finetune", 2),
        ("retrain", 1),
    ]


def test_one_class_under_two_names_is_refused(tiny):
    source = SimpleNamespace(open=lambda: SimpleNamespace(classes=("Shirt", "Bag")))
    made = replace(plan(tiny), data=SimpleNamespace(source=source))
    made.check_data([0, "Bag"])
    with pytest.raises(InputError, match="forget_classes: 'bag' and 1 are the same class; name it once"):
        made.check_data(["bag", 1])


def test_an_edited_method_of_ones_own_is_another_cell(tiny, tmp_path, monkeypatch):
    file = tmp_path / "arena_edited_method.py"
    file.write_text("from retrace_pl.unlearning import Identity\n\nclass Mine(Identity): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = "--methods=[retain_finetune, {name: mine, class_path: arena_edited_method.Mine}]"
    before = {cell.method: cell.settings_hash for cell in plan(tiny, options).cells}
    file.write_text(file.read_text() + "# edited\n")
    after = {cell.method: cell.settings_hash for cell in plan(tiny, options).cells}
    assert [name for name in before if before[name] != after[name]] == ["mine"]


def test_names_that_make_the_same_folder_are_refused(tiny):
    methods = [{"name": name, "class_path": "Identity"} for name in ("a b", "a/b")]
    with pytest.raises(InputError, match="two cells are called a_b-x1"):
        plan(tiny, f"--methods={json.dumps(methods)}")


def test_strange_names_stay_inside_the_folder(tiny):
    cell = replace(plan(tiny).cells[0], method="../../evil", forget_class="T-shirt/top", attack="..")
    assert cell.id == "evil-x1-seed0-classT_shirt_top-black-_"
