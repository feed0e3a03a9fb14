"""The whole log of a run as TensorBoard reads it: every entry is one that the documentation describes."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from retrace_pl.report.tensorboard_tags import LAYOUT, TAGS, described

google_text = pytest.importorskip("google.protobuf.text_format")

EVERYTHING = {"images": 0, "histograms": 0}  # by default a sample of them is kept
KINDS = {"scalars": "scalar", "histograms": "histogram", "images": "image"}
TEXTS_ALONE = ("Texts", "The generator's texts", "The same for texts")


@pytest.fixture(scope="module")
def log(finished_run):
    """Run -> its events, of a whole run folder."""
    root = finished_run / "tensorboard"
    places = sorted({path.parent for path in root.rglob("events.*")})
    return {place.relative_to(root).as_posix(): EventAccumulator(str(place), EVERYTHING).Reload() for place in places}


def entries(log):
    for run, events in log.items():
        tags = events.Tags()
        for group, kind in KINDS.items():
            yield from ((run, tag, kind) for tag in tags[group])
        yield from ((run, tag, "layout") for tag in tags["tensors"])


def test_every_stage_has_runs(log):
    training = {"original", "evaluator", "generator", "unlearned", "retrained-0", "retrained-1"}
    searches = {"attack-0", "attack-1", "matched_retrain-0", "matched_retrain-1", "identity-0", "rival.random-0"}
    arms = {"attack", "prior", "matched_retrain", "identity", "holdout", "random", "original", "unlearned", "retrained"}
    expected = training | {f"search/{name}" for name in searches} | {f"evaluation/{name}" for name in arms}
    assert set(log) == expected | {"evaluation"}


def test_every_entry_is_documented(log):
    assert [entry for entry in entries(log) if described(*entry) is None] == []


def test_everything_documented_is_there(log):
    found = {described(*entry) for entry in entries(log)}
    missing = {tag for tag in TAGS if tag not in found and not tag.shows.startswith(TEXTS_ALONE)}
    assert {(tag.run, tag.kind) for tag in missing} == {("evaluation", "projector")}, "it has files of its own"


def test_no_training_puts_a_row_into_the_hparams_tab(log):
    assert not any(tag.startswith(("hp_metric", "_hparams_")) for _, tag, _ in entries(log))


def test_candidates_and_scores_over_the_queries(log):
    events = log["search/attack-0"]
    for found in (events.Images("search/candidates"), events.Histograms("search/scores")):
        steps = [event.step for event in found]
        assert len(steps) > 1
        assert steps == sorted(set(steps))
        assert steps[-1] <= 256


def test_the_projector_shows_every_search(finished_run):
    root = finished_run / "tensorboard" / "evaluation"
    config = google_text.Parse((root / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (shown,) = config.embeddings
    rows = [line.split("\t") for line in (root / shown.metadata_path).read_text().splitlines()]
    assert rows[0] == ["search", "kind", "score", "outcome", "query"]
    assert {row[0] for row in rows[1:]} >= {"attack-0", "attack-1", "prior-1", "matched_retrain-0", "rival.random-0"}
    assert all(row[3] in ("0", "1") for row in rows[1:] if row[1] == "selected"), "every selected candidate was judged"
    points = (root / shown.tensor_path).read_text().splitlines()
    assert len(points) == len(rows) - 1
    assert {len(point.split("\t")) for point in points} == {16}
    assert (root / shown.sprite.image_path).read_bytes().startswith(b"\x89PNG")
    assert list(shown.sprite.single_image_dim) == [16, 16]


def test_layout(log):
    assert set(LAYOUT) == {"Search", "Training", "Unlearning", "Evaluation"}
    assert all("custom_scalars__config__" in log[run].Tags()["tensors"] for run in ("evaluation", "search/attack-0"))
