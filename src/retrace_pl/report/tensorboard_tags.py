"""What is in a run's TensorBoard log: every tag with its run, step axis and meaning, and the layout of charts."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

__all__ = ["LAYOUT", "TAGS", "Kind", "Tag", "described"]

Kind = Literal["scalar", "histogram", "image", "text", "projector", "layout"]


@dataclass(frozen=True)
class Tag:
    """One kind of entry in the log.

    Args:
        run: TensorBoard run inside ``RUN/tensorboard``; ``*`` stands for any name.
        tag: Tag; ``*`` stands for any text.
        kind: Kind of data, and with it the tab that shows it.
        step: What the step axis counts.
        shows: What it is, in one sentence.
    """

    run: str
    tag: str
    kind: Kind
    step: str
    shows: str

    def matches(self, run: str, tag: str, kind: Kind) -> bool:
        """Whether this describes an entry of the log."""
        return kind == self.kind and fnmatchcase(run, self.run) and _fits(tag, self.tag)


def _fits(tag: str, pattern: str) -> bool:
    """As fnmatch, but ``*`` stays within one level."""
    return tag.count("/") == pattern.count("/") and fnmatchcase(tag, pattern)


_SEARCH, _ARM = "search/*", "evaluation/*"

TAGS: tuple[Tag, ...] = (
    Tag("generator", "train/loss_generator", "scalar", "epoch", "Images: mean loss of the generator."),
    Tag("generator", "train/loss_discriminator", "scalar", "epoch", "Images: mean loss of its discriminator."),
    Tag("generator", "train/real", "scalar", "epoch", "Images: the discriminator's mean logit of real ones."),
    Tag("generator", "train/fake", "scalar", "epoch", "Images: its mean logit of generated ones."),
    Tag("generator", "val/fid_features", "scalar", "epoch", "Images: FID in the evaluator's features."),
    Tag("generator", "train/loss", "scalar", "epoch", "Texts: mean loss of a token, in nats."),
    Tag("generator", "val/perplexity", "scalar", "epoch", "Texts: perplexity of unseen ones given their latents."),
    Tag("generator", "val/loss", "scalar", "epoch", "Texts: the same on unseen ones."),
    Tag("generator", "val/gain", "scalar", "epoch", "Texts: how much worse another text's latent is, nats a token."),
    Tag("generator", "val/classes", "scalar", "epoch", "Texts: effective number of classes among the samples."),
    Tag("generator", "samples/ema", "image", "epoch", "The averaged generator's images of the same latents."),
    Tag("generator", "samples/prior", "text", "epoch", "The generator's texts of the same latents."),
    Tag("*", "train/loss", "scalar", "epoch", "Mean cross-entropy of a classifier's training batches."),
    Tag("*", "train/accuracy", "scalar", "epoch", "Its accuracy on them, in [0, 1]."),
    Tag("*", "val/loss", "scalar", "epoch", "Its cross-entropy on the test split."),
    Tag("*", "val/accuracy", "scalar", "epoch", "Its accuracy on the test split, in [0, 1]."),
    Tag("*", "val/accuracy_macro", "scalar", "epoch", "The same as a mean over classes."),
    Tag("*", "unlearn/loss", "scalar", "optimiser step", "What an unlearning method minimises."),
    Tag("*", "unlearn/retain_acc", "scalar", "optimiser step", "Accuracy on retained records, in [0, 1]."),
    Tag("*", "unlearn/forget_acc", "scalar", "optimiser step", "Accuracy on the records to forget, in [0, 1]."),
    Tag("*", "unlearn/*", "scalar", "optimiser step", "Every further number that the method reports."),
    Tag("*", "epoch", "scalar", "optimiser step", "Epoch of each step of unlearning."),
    Tag(_SEARCH, "search/best_score", "scalar", "queries", "Largest trace score so far."),
    Tag(_SEARCH, "search/topk_score", "scalar", "queries", "Mean of the 64 largest trace scores so far."),
    Tag(_SEARCH, "search/batch_score", "scalar", "queries", "Mean trace score of the last batch of candidates."),
    Tag(_SEARCH, "search/latent_norm", "scalar", "queries", "Mean norm of the last batch of latents."),
    Tag(_SEARCH, "search/reward", "scalar", "queries", "Mean reward of the policy's last update."),
    Tag(
        _SEARCH,
        "search/kl_to_prior",
        "scalar",
        "queries",
        "KL divergence of the policy's latents to the prior.",
    ),
    Tag(
        _SEARCH,
        "search/deleted_class_by_original",
        "scalar",
        "queries",
        "Share of the last candidates that f⁺ takes for a deleted class; the attack never sees it.",
    ),
    Tag(
        _SEARCH,
        "search/*",
        "scalar",
        "queries",
        "Every further number of the searcher: `train_value_loss`, ...",
    ),
    Tag(_SEARCH, "search/candidates", "image", "queries", "The best candidates so far."),
    Tag(_SEARCH, "search/candidates", "text", "queries", "The same for texts."),
    Tag(_SEARCH, "search/scores", "histogram", "queries", "Trace scores of the candidates queried since the last one."),
    Tag(_SEARCH, "search/latent_norms", "histogram", "queries", "Norms of their latents."),
    Tag(_ARM, "evaluate/*", "scalar", "repeat", "Metrics of an arm's selected candidates, as in `metrics.json`."),
    Tag(_ARM, "quality/*", "scalar", "0", "Accuracies and membership AUC of a model."),
    Tag("evaluation", "leakage/*/value", "scalar", "0", "Leakage of one kind: excess, avoidable, record, ..."),
    Tag("evaluation", "leakage/*/low", "scalar", "0", "Lower end of its interval."),
    Tag("evaluation", "leakage/*/high", "scalar", "0", "Upper end of its interval."),
    Tag("evaluation", "calibration/auroc/*", "scalar", "0", "How well each signal sorts data whose answer is known."),
    Tag(
        "evaluation",
        "traces/*/*",
        "histogram",
        "0",
        "Signal by group of records: deleted, retained, unseen of the deleted class, public, noise, mixtures.",
    ),
    Tag("evaluation", "latents", "projector", "none", "Queried and selected latents with pictures and scores."),
    Tag("*", "custom_scalars__config__", "layout", "none", "The charts of the Custom Scalars tab."),
)
"""Every entry of a run's log; the first row that matches describes an entry."""


def described(run: str, tag: str, kind: Kind) -> Tag | None:
    """The row that describes an entry of a log, or None for an unknown one.

    Args:
        run: TensorBoard run inside ``RUN/tensorboard``.
        tag: Its tag.
        kind: Its kind of data.
    """
    return next((row for row in TAGS if row.matches(run, tag, kind)), None)


def _lines(*patterns: str) -> tuple[str, list[str]]:
    """A chart with a line for every run and tag that one of the regular expressions matches in full."""
    return "Multiline", [f"{pattern}$" for pattern in patterns]


LAYOUT: dict[str, dict[str, tuple[str, list[str]]]] = {
    "Search": {
        "Mean of the best candidates": _lines("search/topk_score"),
        "Best score": _lines("search/best_score"),
        "Share seen as a deleted class by the original model": _lines("search/deleted_class_by_original"),
        "Reward": _lines("search/reward"),
        "KL divergence to the prior": _lines("search/kl_to_prior"),
    },
    "Training": {
        "Test accuracy": _lines("val/accuracy"),
        "Loss": _lines("train/loss", "val/loss"),
        "Generator: losses": _lines("train/loss_(generator|discriminator)"),
        "Generator: distance to real data": _lines("val/(fid_features|perplexity)"),
    },
    "Unlearning": {
        "Accuracy, retained and to forget": _lines("unlearn/(retain|forget)_acc"),
        "Losses": _lines("unlearn/([a-z_]+_)?loss"),
    },
    "Evaluation": {
        "Success under the evaluator, by repeat": _lines("evaluate/sr_oracle"),
        "Trace score of what was selected, by repeat": _lines("evaluate/score"),
    },
}
"""Category -> chart -> its kind and the regular expressions of its tags, as `add_custom_scalars` takes it."""
