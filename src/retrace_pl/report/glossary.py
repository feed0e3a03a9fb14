"""Plain words for access levels, signals and arms of the comparison; those for metrics come with the kind of data."""

from __future__ import annotations

from retrace_pl.audit import CONTROLS

__all__ = [
    "ACCESS",
    "ATTACKS",
    "FACTS",
    "LEAKAGE",
    "QUALITY",
    "SIGNALS",
    "arm_title",
    "attack_summary",
    "attack_title",
    "format_value",
]

LEAKAGE: dict[str, tuple[str, str]] = {
    "excess": ("Excess", "attack minus prior only: what asking the two models added to the generator's own ability"),
    "avoidable": ("Avoidable", "attack minus matched retrain: what better unlearning would have prevented"),
    "record": (
        "Record",
        "how much nearer to deleted than to unseen records of the class, (h - d) / (h + d): memory, not class",
    ),
}

ACCESS: dict[str, str] = {
    "black": "the output probabilities of both models for any input it chose; no losses, gradients or weights",
    "gray": "the output probabilities and the losses of both models for any input it chose; no gradients or weights",
    "white": "output probabilities, losses and input gradients of both models for any input it chose",
}

SIGNALS: dict[str, str] = {
    "prediction": "Prediction gap",
    "loss": "Loss gap",
    "gradient": "Gradient gap",
    "score": "Score",
}

QUALITY: dict[str, tuple[str, str]] = {
    "forget_acc": (
        "Accuracy on the deleted data",
        "Falls when the data is forgotten.",
    ),
    "retain_acc": ("Accuracy on the retained data", "Should stay where it was."),
    "test_acc": ("Test accuracy", "On unseen data of all classes."),
    "mia_auc": (
        "Membership inference AUC",
        "Deleted records against unseen ones of their class by confidence; 50% tells nothing apart.",
    ),
}

_ARMS = {"attack": "Attack", "random": "Random search", "cma_es": "CMA-ES", "gradient_ascent": "Gradient ascent"} | {
    name.lower(): name for name in ("CEM", "PPO", "A2C", "SAC", "TD3", "TRPO")
}
ATTACKS: dict[str, tuple[str, str]] = {
    "uia": ("UIA", "Seeks inputs whose gradient points along the change of the parameters."),
    "hrec": ("HRec", "Reads features of the deleted data off the change of the last layer and inverts them."),
    "max_diff": ("MaxDiff", "The public records with the largest trace; no generator."),
    "prior_top_k": ("Prior top-k", "The generator's random samples with the largest trace; no search."),
    "retrace": ("ReTrace", "Climbs the same trace in the generator's latent space, set up differently."),
    "class_inference": ("Class inference", "The class whose public records the two models disagree about most."),
    "label_inference": ("Label inference", "The class whose confident inputs the unlearned model is least sure of."),
    "unlearning_leaks": (
        "Unlearning leaks",
        "Tells a deleted record from an unseen one, learnt from an unlearning of the attacker's own.",
    ),
}
"""Key of another attack -> its name and what it does, in one sentence."""

FACTS: dict[str, str] = {
    "auroc": "AUROC",
    "auroc_before": "AUROC from the original model alone",
    "tpr_at_1pct_fpr": "true positives at 1% false ones",
    "true_rank": "rank of the deleted class",
    "rank": "rank of the deleted class",
    "shadow_auroc": "AUROC on its own unlearning",
    "deleted": "deleted records",
    "unseen": "unseen records",
    "clear": "set apart by a clear gap",
}
"""Key of an inference's answer, or of how it was judged -> words for it; others are printed as they are called."""


def attack_title(name: str) -> str:
    """Heading of another attack: its own name, that of the searcher it brings, and its number where it repeats."""
    known = _known_attack(name)
    title = name.replace("_", " ") if known is None else ATTACKS[known][0]
    rest = "" if known is None else name.removeprefix(known).removeprefix("_")
    searcher, _, number = rest.rpartition("_") if rest.rpartition("_")[2].isdigit() else (rest, "", "")
    brought = _ARMS.get(searcher, searcher.replace("_", " "))
    brought = brought if brought[1:2].isupper() else brought.lower()
    title += f" with {brought}" if searcher else ""
    return f"{title} ({number})" if number else title


def attack_summary(name: str) -> str:
    """What another attack does, in one sentence; empty for one that is not known here."""
    known = _known_attack(name)
    return "" if known is None else ATTACKS[known][1]


def _known_attack(name: str) -> str | None:
    return next((key for key in ATTACKS if name == key or name.startswith(f"{key}_")), None)


def arm_title(name: str) -> str:
    """Heading of an arm of the comparison: the attack, a control, a rival searcher or another attack by its name."""
    if name.startswith("baselines."):
        return attack_title(name.removeprefix("baselines."))
    name = name.removeprefix("rivals.")
    if name in CONTROLS:
        return CONTROLS[name].title
    return _ARMS.get(name, name.replace("_", " ").removesuffix("Searcher"))


def format_value(value: float, percent: bool = False) -> str:
    """A number for people: three significant digits, or percent without decimals unless it is near 0 or 1."""
    if percent:
        share = 100 * value
        return f"{share:.0f}%" if 1 <= share <= 99 or share in (0, 100) else f"{share:.1f}%"
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1000 else f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.0f}"
