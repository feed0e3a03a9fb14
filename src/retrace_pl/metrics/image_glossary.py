"""Words for the metrics of images."""

from __future__ import annotations

from retrace_pl.metrics.glossary import CLASS_SUCCESS, Glossary, Metric

__all__ = ["IMAGES"]

_METRICS: dict[str, Metric] = {
    **CLASS_SUCCESS,
    "sr_mse": Metric(
        "Success (distance)",
        "higher",
        "Share of candidates nearer to a deleted record than two deleted records are to each other on average.",
        percent=True,
        found="as close to a deleted record as deleted records are to each other",
    ),
    "mse": Metric(
        "Nearest-record MSE",
        "lower",
        "Mean squared error to the nearest deleted record, inputs in [0, 1]. Rewards blur: never read it alone.",
        floors=("best_holdout_mse", "class_mean_mse", "intra_class_mse", "other_class_mse"),
    ),
    "pairwise_mse": Metric(
        "Pairwise MSE",
        "lower",
        "Mean squared error over all pairs of a candidate and a deleted record.",
        floors=("intra_class_mse",),
    ),
    "psnr": Metric(
        "PSNR (dB)", "higher", "Peak signal-to-noise ratio to the nearest deleted record, mean; 58.9 for a copy."
    ),
    "ssim": Metric("SSIM", "higher", "Structural similarity to the nearest deleted record, at most 1."),
    "cs": Metric(
        "Centred cosine",
        "higher",
        "Cosine similarity to the nearest deleted record after the test images' mean is taken off both.",
    ),
    "fid_oracle": Metric(
        "FID (evaluator features)",
        "lower",
        "Fréchet distance between candidates and deleted records in the evaluator's features; not comparable with "
        "Inception-based figures.",
    ),
    "kid_oracle": Metric(
        "KID (evaluator features)", "lower", "Unbiased kernel distance between the same two sets of features."
    ),
    "kl": Metric(
        "KL (features)", "lower", "Kullback-Leibler divergence of Gaussians fitted to both sets of features, shrunk."
    ),
    "label_kl": Metric(
        "KL (labels)", "lower", "Divergence of the class histogram of the candidates from that of the deleted records."
    ),
    "diversity": Metric(
        "Diversity",
        "higher",
        "Mean pairwise distance within the candidates. Near zero: many copies of one candidate.",
        floors=("deleted_diversity",),
    ),
    "precision": Metric(
        "Precision", "higher", "Share of candidates that lie on the manifold of the deleted records.", percent=True
    ),
    "recall": Metric(
        "Recall", "higher", "Share of the deleted records that lie on the manifold of the candidates.", percent=True
    ),
    "score": Metric(
        "Trace score",
        "none",
        "What the search climbed: the normalised gap between the two models, in [0, 1]. Shows effort, not success.",
    ),
}

_FLOORS: dict[str, str] = {
    "heldout_sr_oracle": "unseen real records",
    "best_holdout_mse": "best unseen real record",
    "class_mean_mse": "class mean",
    "intra_class_mse": "two deleted records",
    "other_class_mse": "another class",
    "deleted_diversity": "the deleted records",
}

IMAGES = Glossary(
    domain="image",
    items="images",
    shown="pictures",
    metrics=_METRICS,
    floors=_FLOORS,
    closeness="mse",
    closeness_title="nearest-record MSE",
    closeness_short="MSE",
    columns=("mse", "diversity", "fid_oracle"),
    summary=("sr_oracle", "mse", "cs", "fid_oracle", "diversity"),
    legend="Upper picture: a candidate. Lower picture: the deleted record nearest to it in pixels. s: trace score. "
    "MSE: distance to that record.",
    caution="MSE rewards blur: one grey average picture can be nearer to every record than honest reconstructions are. "
    "Read it with success and diversity.",
    caution_short="MSE rewards blur: read it with success and diversity.",
)
"""Words for images."""
