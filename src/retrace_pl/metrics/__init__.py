"""What the reconstructions are worth: torchmetrics metrics, each defined in its docstring.

Metrics that compare with a reference take it when they are built and hold it on every rank; `update` takes candidates.
`pixels` and `structure` work on the inputs, `features`, `mmd`, `manifold` and `labels` on what an evaluator makes of
them; `text` has those of texts. A `Domain` says which of them an audit of its kind of data uses, and in which words. A
metric that is not defined for what it saw (one candidate has no diversity) computes NaN.
"""

from retrace_pl.metrics.distances import Nearest, cross_pairwise_mse, distance_matrix, nearest_records, pairwise_mse
from retrace_pl.metrics.domain import Domain, ImageDomain
from retrace_pl.metrics.features import FeatureFID, FeatureKID, FeatureKL, frechet_distance, kernel_distance
from retrace_pl.metrics.floors import intra_class_mse, mse_floors
from retrace_pl.metrics.glossaries import found_words, glossary_of, metric_words
from retrace_pl.metrics.glossary import Glossary
from retrace_pl.metrics.labels import LabelKL
from retrace_pl.metrics.manifold import PrecisionRecall
from retrace_pl.metrics.membership import MembershipAUC, membership_auc, tpr_at_fpr
from retrace_pl.metrics.mmd import FeatureMMD
from retrace_pl.metrics.pixels import CentredCosine, Diversity, NearestMSE, NearestPSNR, PairwiseMSE
from retrace_pl.metrics.structure import SSIM, ssim_window
from retrace_pl.metrics.success import SuccessRate, wilson_interval

__all__ = [
    "SSIM",
    "CentredCosine",
    "Diversity",
    "Domain",
    "FeatureFID",
    "FeatureKID",
    "FeatureKL",
    "FeatureMMD",
    "Glossary",
    "ImageDomain",
    "LabelKL",
    "MembershipAUC",
    "Nearest",
    "NearestMSE",
    "NearestPSNR",
    "PairwiseMSE",
    "PrecisionRecall",
    "SuccessRate",
    "cross_pairwise_mse",
    "distance_matrix",
    "found_words",
    "frechet_distance",
    "glossary_of",
    "intra_class_mse",
    "kernel_distance",
    "membership_auc",
    "metric_words",
    "mse_floors",
    "nearest_records",
    "pairwise_mse",
    "ssim_window",
    "tpr_at_fpr",
    "wilson_interval",
]
