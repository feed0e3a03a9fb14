"""A realistic run folder: real digits, plausible figures."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits


def measure(sr, mse, fid, score, *, diversity=0.05, level="distribution"):
    whole = level == "distribution"
    half = 0.04 if whole else 0.2
    return {
        "mse": mse,
        "pairwise_mse": mse + 0.03,
        "ssim": 0.62,
        "cs": 0.71,
        "sr_oracle": sr,
        "sr_original": min(1.0, sr + 0.02),
        "sr_mse": 0.9,
        "fid_oracle": fid if whole else None,
        "kid_oracle": fid / 40 if whole else None,
        "kl": 3.1 if whole else None,
        "label_kl": 0.21 if whole else None,
        "diversity": diversity if whole else None,
        "precision": 0.71 if whole else None,
        "recall": 0.44 if whole else None,
        "score": score,
        "intervals": {"sr_oracle": [max(0.0, sr - half), min(1.0, sr + half)]},
    }


def both(sr, mse, fid, score, **extra):
    return {
        "instance": measure(round(sr), mse * 0.7, fid, score, level="instance"),
        "distribution": measure(sr, mse, fid, score),
        "repeats": [
            {
                "instance": measure(1, mse, fid, score, level="instance"),
                "distribution": measure(sr, mse, fid, score),
                "seed": seed,
            }
            for seed in range(3)
        ],
        **extra,
    }


def make_metrics():
    counts = {str(digit): 60 for digit in range(10)}
    return {
        "schema": 1,
        "name": "Digits, negative gradient",
        "verdict": "leak",
        "verdict_reason": "Candidates found through the two models are recognised as deleted data by the independent "
        "evaluator more often than the generator's own samples (+87 percentage points, 95% interval +79 to +94); "
        "a perfect retrain leaks as much, so better unlearning alone would not prevent it.",
        "setting": {
            "access": "white",
            "data": "DigitsSource",
            "deletion": "class",
            "deleted_classes": ["3"],
            "deleted_records": 61,
            "public_includes_deleted": False,
            "unlearning": "NegativeGradient",
            "searcher": "SB3Searcher (PPO)",
            "generator": "DCGAN",
            "classifier": "SmallCNN",
            "normaliser": "FixedQuantile",
            "sign": "positive",
            "signals": ["prediction", "loss", "gradient"],
            "tau": 0.01,
        },
        "splits": {
            "train": counts,
            "retain": counts | {"3": 0},
            "forget": {"3": 61},
            "public": counts | {"3": 0},
            "evaluator": counts,
            "test": {key: 36 for key in counts},
        },
        "models": {
            "original": {"test_acc": 0.973},
            "unlearned": {"test_acc": 0.881},
            "evaluator": {"test_acc": 0.961},
            "retrained": {"test_acc": 0.879},
        },
        "unlearning": {"retain_acc": 0.981, "forget_acc": 0.0, "mia_auc": 0.53, "test_acc": 0.881},
        "original": {"retain_acc": 1.0, "forget_acc": 1.0, "mia_auc": 0.55, "test_acc": 0.973},
        "calibration": {
            "auroc": {"prediction": 0.998, "loss": 0.997, "gradient": 0.871, "score": 0.996},
            "tiny_gradient_fraction": 0.002,
            "tpr_at_1pct_fpr": 0.93,
            "positives": 36,
            "negatives": 324,
        },
        "attack": both(0.95, 0.014, 32.6, 0.987, score_spread=0.96, max_trace=11.2),
        "controls": {
            "prior": both(0.08, 0.031, 71.2, 0.0),
            "matched_retrain": both(0.93, 0.015, 34.1, 0.981),
            "identity": both(0.09, 0.03, 70.3, 0.0, max_trace=0.0, score_spread=0.0),
            "holdout": both(0.95, 0.0142, 33.0, 0.987),
        },
        "rivals": {"random": both(0.61, 0.02, 47.0, 0.82)},
        "retrained": {"retain_acc": 0.99, "forget_acc": 0.0, "mia_auc": 0.5, "test_acc": 0.879},
        "floors": {
            "intra_class_mse": 0.0612,
            "class_mean_mse": 0.0304,
            "best_holdout_mse": 0.0121,
            "other_class_mse": 0.0831,
            "deleted_diversity": 0.0612,
            "heldout_sr_oracle": 0.97,
        },
        "leakage": {
            "excess": {
                "value": 0.87,
                "low": 0.79,
                "high": 0.94,
                "metric": "sr_oracle",
                "level": 0.95,
                "repeats": 3,
                "note": "",
            },
            "avoidable": {
                "value": 0.02,
                "low": -0.04,
                "high": 0.08,
                "metric": "sr_oracle",
                "level": 0.95,
                "repeats": 3,
                "note": "",
            },
            "record": {
                "value": 0.012,
                "low": -0.031,
                "high": 0.055,
                "metric": "relative_nearest_mse",
                "level": 0.95,
                "repeats": 3,
                "note": "",
            },
        },
        "budget": {"queries": 20480, "repeats": 3, "refinement": 32, "top_k": 64},
        "seeds": {"audit": 0, "attack": [11, 12, 13]},
        "versions": {"retrace_pl": "0.1.0", "torch": "2.14.1", "lightning": "2.6.6", "python": "3.11.2"},
        "seconds": {"pretrain": 11.2, "generator": 31.0, "unlearn": 6.4, "attack": 44.1, "evaluate": 3.8},
    }


def make_tensors():
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]
    images = torch.nn.functional.interpolate(images, size=16, mode="bilinear").clamp(0, 1)
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    threes, others = images[labels == 3][:61], images[labels != 3]

    def blurred(pool, k):
        pick = torch.randint(len(pool), (k, 2), generator=generator)
        mixed = 0.7 * pool[pick[:, 0]] + 0.3 * pool[pick[:, 1]]
        return (mixed + 0.05 * torch.randn(mixed.shape, generator=generator)).clamp(0, 1)

    def nearest(candidates):
        return threes[torch.cdist(candidates.flatten(1), threes.flatten(1)).argmin(1)]

    tensors = {}
    for arm, pool in (("attack", threes), ("prior", others), ("matched_retrain", threes), ("identity", others)):
        candidates = blurred(pool, 64)
        tensors[f"{arm}.distribution"] = candidates
        if arm != "identity":
            tensors[f"{arm}.nearest"] = nearest(candidates)
        tensors[f"{arm}.scores"] = torch.rand(64, generator=generator) * 0.05 + (0.95 if pool is threes else 0.2)
        tensors[f"{arm}.success"] = (torch.rand(64, generator=generator) < (0.95 if pool is threes else 0.08)).float()
        if arm != "identity":
            tensors[f"{arm}.instance"], tensors[f"{arm}.instance_nearest"] = candidates[:1], nearest(candidates[:1])
    for group, mean in (("forget", 0.8), ("unseen", 0.74), ("retain", 0.1)):
        for signal, scale in (("prediction", 1.2), ("loss", 9.0), ("gradient", 0.9), ("score", 1.0)):
            noise = 0.15 * torch.randn(200, generator=generator)
            tensors[f"traces.{group}.{signal}"] = scale * (mean + noise).clamp(0, 1)
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def make_curves():
    queries = np.linspace(512, 20480, 40)
    shape = 1 - np.exp(-queries / 3000)
    rows = lambda best, mean: [[int(q), float(b), float(m)] for q, b, m in zip(queries, best, mean, strict=True)]  # noqa: E731
    return {
        "attack": rows(0.6 + 0.4 * shape, 0.3 + 0.69 * shape),
        "matched_retrain": rows(0.58 + 0.41 * shape, 0.28 + 0.68 * shape),
        "identity": rows(0 * shape, 0 * shape),
        "random": rows(0.6 + 0.35 * shape, 0.3 + 0.52 * shape),
        "CEMSearcher": rows(0.6 + 0.4 * shape, 0.25 + 0.73 * shape),
    }


def write_run(folder, metrics=None, tensors=None, curves=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(make_metrics() if metrics is None else metrics))
    (folder / "curves.json").write_text(json.dumps(make_curves() if curves is None else curves))
    save_file(make_tensors() if tensors is None else tensors, folder / "evaluation.safetensors")
    (folder / "config.yaml").write_text("access: white\nname: Digits <b>bold</b>\n")
    return folder


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A run folder with everything in it; read only."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def metrics():
    return make_metrics()


@pytest.fixture
def make_run(tmp_path):
    """Writes a run folder with changed parts."""
    return lambda **parts: write_run(tmp_path / "run", **parts)


BANK = "The central bank raised its main interest rate by a quarter point on Tuesday, its third increase this year."
TEXT_ARMS = {
    "attack": (
        "The central bank raised its main interest rate on Tuesday as prices rose for a third month.",
        BANK,
        "Shares of the airline fell sharply after it warned of higher fuel costs and fewer bookings.",
        "The retailer said quarterly profit rose on strong holiday sales, beating forecasts.",
    ),
    "prior": (
        "The minister said talks with the union would go on through the week.",
        "A win in the final gave the side its first cup for ten years.",
        "The company said it would sell the phone in stores from Monday.",
        "Shares of the company were up by a third after the report.",
    ),
}
TEXT_DELETED = (
    BANK,
    "Shares of the airline fell sharply on Monday after it warned of higher fuel costs for the rest of the year.",
    "The retailer said quarterly profit rose on strong holiday sales of toys & games, and raised its outlook.",
)


def make_text_metrics():
    """Metrics of an audit of texts, with every metric's value of its own and unseen real texts beside it."""
    metrics = make_metrics()
    metrics |= {"domain": "text", "span_words": 6, "perplexity_under": "interpolated 3-gram model"}
    metrics["name"] = "AG News, class Business, negative gradient"
    metrics["setting"] |= {"data": "AG News", "deleted_classes": ["Business"], "generator": "GPT2Generator"}
    values = {
        **{"bleu": 14.2, "bleu_corpus": 9.8, "rouge_l": 0.31, "rouge_l_corpus": 0.061, "mmd": 0.19, "fid_oracle": 21.5},
        **{"sr_oracle": 0.86, "sr_original": 0.9, "sr_rouge": 0.42, "sr_verbatim": 0.03, "longest_span": 9.0},
        **{"mean_span": 3.4, "label_kl": 0.2, "precision": 0.5, "recall": 0.2, "distinct_1": 0.31, "distinct_2": 0.74},
        **{"perplexity": 212.0},
    }
    share = {"attack": 1.0, "prior": 0.4, "matched_retrain": 0.9, "identity": 0.4, "holdout": 1.0, "random": 0.7}
    arms = {"attack": metrics["attack"]} | metrics["controls"] | metrics["rivals"]
    for arm, stored in arms.items():
        for level in ("instance", "distribution"):
            figures = {name: value * share[arm] for name, value in values.items()} | {"score": 0.9 * share[arm]}
            if level == "instance":
                figures |= dict.fromkeys(("mmd", "fid_oracle", "label_kl", "precision", "recall"))
            rate = figures["sr_oracle"]
            stored[level] = figures | {"intervals": {"sr_oracle": [max(0, rate - 0.1), min(1, rate + 0.1)]}}
    held = {f"heldout_{name}": value * 0.5 for name, value in values.items() if name not in ("sr_original", "label_kl")}
    metrics["floors"] = held | {"deleted_rouge_l": 0.22, "other_rouge_l": 0.14}
    metrics["leakage"]["record"]["metric"] = "relative_nearest_rouge_l"
    return metrics


def write_text_run(folder):
    """A run folder of texts; a HTML tag in one of them shows that it stays text."""
    texts = {}
    for arm in ("attack", "prior", "matched_retrain"):
        own = [*TEXT_ARMS["prior" if arm == "prior" else "attack"]] * 2
        texts[f"{arm}.distribution"] = own
        texts[f"{arm}.nearest"] = [TEXT_DELETED[index % 3] for index in (0, 0, 1, 2, 0, 0, 1, 2)]
        texts[f"{arm}.instance"], texts[f"{arm}.instance_nearest"] = own[:1], [TEXT_DELETED[0]]
    tensors = {name: value for name, value in make_tensors().items() if name.startswith("traces.")}
    for arm in ("attack", "prior", "matched_retrain"):
        tensors[f"{arm}.distribution"] = torch.randint(4, 900, (8, 24), generator=torch.Generator().manual_seed(0))
        tensors[f"{arm}.scores"] = torch.linspace(0.99, 0.8, 8)
        tensors[f"{arm}.success"] = torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1])
    write_run(folder, metrics=make_text_metrics(), tensors=tensors)
    (folder / "texts.json").write_text(json.dumps(texts))
    return folder


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    """A run folder of an audit of texts; read only, but for the files of a report."""
    return write_text_run(tmp_path_factory.mktemp("texts"))
