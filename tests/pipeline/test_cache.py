"""The folder of shared artefacts: made once, whole or absent, safe between processes."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline.cache import MANIFEST, Artefact, ArtefactCache, Job, complete, place_file

PRODUCER = """
import sys, time
from pathlib import Path
from retrace_pl.pipeline.cache import Artefact, ArtefactCache, Job, complete

root, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def make():
    with (root / "log").open("a") as log:
        log.write(f"{name} begins\\n")
    time.sleep(seconds)
    product = root / f"{name}.txt"
    product.write_text("product")
    return {"product.txt": product}

def take(files):
    (root / f"{name}.taken").write_text(files["product.txt"].read_text())

complete([Job(ArtefactCache(root / "cache"), Artefact("model", {"seed": 0}), make, take)])
"""


class Maker:
    """Makes one small file, and remembers what happened."""

    def __init__(self, folder, cache, name="model", **inputs):
        self.cache = cache
        self.artefact = Artefact(name, inputs)
        self.product = folder / f"product-{name}"
        self.made = 0
        self.taken = []

    def make(self):
        self.made += 1
        self.product.write_text("content")
        return {"product": self.product}

    def job(self, **options):
        return Job(self.cache, self.artefact, self.make, self.taken.append, **options)

    def entry(self):
        return self.cache.root / self.artefact.name / self.artefact.key


@pytest.fixture
def cache(tmp_path):
    return ArtefactCache(tmp_path / "cache")


@pytest.fixture
def maker(tmp_path, cache):
    return Maker(tmp_path, cache, seed=0, settings={"lr": 0.1, "net": (64, 64)})


def test_made_once_and_taken_by_another_opener(maker, cache):
    said = []
    complete([maker.job()])
    maker.cache = ArtefactCache(cache.root)
    complete([maker.job(announce=said.append)])
    assert maker.made == 1
    assert [files["product"].read_text() for files in maker.taken] == ["content"]
    assert said == ["model: taken from the cache"]


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": 0, "more": None}, {"seed": "0"}])
def test_other_inputs_are_another_artefact(tmp_path, cache, other):
    complete([Maker(tmp_path, cache, seed=0).job()])
    second = Maker(tmp_path, cache, **other)
    complete([second.job()])
    assert second.made == 1


def truncate(entry):
    (entry / "product").write_text("con")


def change_content(entry):
    (entry / "product").write_text("CONTENT")


def lose_file(entry):
    (entry / "product").unlink()


def damage_manifest(entry):
    (entry / MANIFEST).write_text('{"inputs": {')


def claim_other_inputs(entry):
    manifest = json.loads((entry / MANIFEST).read_text())
    (entry / MANIFEST).write_text(json.dumps(manifest | {"inputs": {"seed": 7}}))


def link_out_of_the_cache(entry):
    outside = entry.parents[2] / "outside"
    outside.write_text("content")
    (entry / "product").unlink()
    (entry / "product").symlink_to(outside)


def name_a_file_outside(entry):
    outside = entry.parents[1] / "outside"
    outside.write_text("content")
    text = (entry / MANIFEST).read_text()
    (entry / MANIFEST).write_text(text.replace('"product"', '"../outside"'))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        change_content,
        lose_file,
        damage_manifest,
        claim_other_inputs,
        link_out_of_the_cache,
        name_a_file_outside,
    ],
)
def test_a_damaged_entry_is_made_again(maker, damage):
    complete([maker.job()])
    maker.product.unlink()  # else the damage would reach it through the link
    damage(maker.entry())
    complete([maker.job()])
    assert (maker.made, maker.taken) == (2, [])
    complete([maker.job()])
    assert [files["product"].read_text() for files in maker.taken] == ["content"]


def test_a_failed_producer_leaves_no_entry_and_no_lock(maker):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete([Job(maker.cache, maker.artefact, fail, maker.taken.append)])
    assert not maker.entry().exists()
    complete([maker.job()])
    assert maker.made == 1


def test_what_a_dead_producer_left_is_cleared(maker):
    abandoned = maker.entry().with_name(f".{maker.artefact.key}.dead")
    abandoned.mkdir(parents=True)
    (abandoned / "product").write_text("cont")
    complete([maker.job()])
    assert not abandoned.exists()
    assert sorted(path.name for path in maker.entry().iterdir()) == [MANIFEST, "product"]


def test_busy_work_is_put_off_until_the_rest_is_done(tmp_path, cache):
    order, said = [], []
    first, second = Maker(tmp_path, cache, "first"), Maker(tmp_path, cache, "second")

    def other_process():
        with ArtefactCache(cache.root).locked(first.artefact):
            locked.set()
            assert free.wait(30)
            cache.store(first.artefact, first.make())

    def make_second():
        order.append("second made")
        free.set()
        return second.make()

    locked, free = threading.Event(), threading.Event()
    thread = threading.Thread(target=other_process)
    thread.start()
    assert locked.wait(30)
    complete(
        [
            Job(cache, first.artefact, first.make, lambda files: order.append("first taken"), said.append),
            Job(cache, second.artefact, make_second, second.taken.append),
        ]
    )
    thread.join()
    assert order == ["second made", "first taken"]
    assert first.made == 1


def start_producer(tmp_path, name, seconds):
    command = [sys.executable, "-c", PRODUCER, str(tmp_path), name, str(seconds)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)


def test_of_several_processes_one_produces_and_a_killed_one_makes_room(tmp_path):
    killed = start_producer(tmp_path, "killed", 600)
    wait_for(tmp_path / "log")
    processes = [start_producer(tmp_path, name, 1) for name in ("one", "two")]
    time.sleep(0.2)
    killed.kill()
    killed.wait()
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    made = (tmp_path / "log").read_text().split()[2]
    other = {"one": "two", "two": "one"}[made]
    assert (tmp_path / "log").read_text() == f"killed begins\n{made} begins\n"
    assert (tmp_path / f"{other}.taken").read_text() == "product"


def test_a_linked_file_is_replaced_without_touching_the_cache(maker, tmp_path):
    complete([maker.job()])
    entry = maker.entry() / "product"
    target = tmp_path / "run" / "product"
    place_file(entry, target)
    assert target.stat().st_ino == entry.stat().st_ino
    place_file(entry, target)  # renaming one link to another does nothing and would leave the first
    assert [path.name for path in target.parent.iterdir()] == ["product"]
    other = tmp_path / "other"
    other.write_text("new")
    place_file(other, target)
    assert (target.read_text(), entry.read_text()) == ("new", "content")


def test_without_links_files_are_copied(maker, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    complete([maker.job()])
    complete([maker.job()])
    place_file(maker.taken[0]["product"], tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "content"
    assert (tmp_path / "copy").stat().st_nlink == 1


def test_a_file_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--cache .*file is a file"):
        ArtefactCache(tmp_path / "file")
    with pytest.raises(InputError, match=r"--cache .* cannot be created"):
        ArtefactCache(tmp_path / "file" / "below")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(InputError, match=r"--cache .* is not writable"):
        ArtefactCache(tmp_path)


def test_a_full_disk_is_named_and_leaves_nothing(maker, monkeypatch):
    def fail(source, target):
        Path(target).write_text("con")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", lambda self, source: fail(source, self))
    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(RunError, match=r"--cache .* cannot be written: No space left on device"):
        complete([maker.job()])
    left = [path.name for path in maker.entry().parent.iterdir()]
    assert left == [f"{maker.artefact.key}.lock"]


def test_a_folder_without_locks_is_named(maker):
    maker.entry().parent.parent.mkdir(exist_ok=True)
    maker.entry().parent.write_text("a file where the folder belongs")
    with pytest.raises(RunError, match=r"--cache .* cannot be locked"):
        complete([maker.job()])
