"""The zoo by name: the names that presets, the command line and result tables use."""

from __future__ import annotations

from retrace_pl.errors import InputError
from retrace_pl.unlearning.bad_teacher import BadTeacher
from retrace_pl.unlearning.base import UnlearningMethod
from retrace_pl.unlearning.boundary_expand import BoundaryExpand
from retrace_pl.unlearning.boundary_shrink import BoundaryShrink
from retrace_pl.unlearning.cf_k import CFk
from retrace_pl.unlearning.delete import Delete
from retrace_pl.unlearning.eu_k import EUk
from retrace_pl.unlearning.fisher import FisherForgetting
from retrace_pl.unlearning.gradient_ascent import GradientAscent
from retrace_pl.unlearning.guard import Guard
from retrace_pl.unlearning.identity import Identity
from retrace_pl.unlearning.ihl import InvertedHinge
from retrace_pl.unlearning.l1_sparse import L1Sparse
from retrace_pl.unlearning.negative_gradient import NegativeGradient
from retrace_pl.unlearning.noisy_finetune import NoisyFineTune
from retrace_pl.unlearning.npo import NPO
from retrace_pl.unlearning.perturbed_distillation import PerturbedDistillation
from retrace_pl.unlearning.random_label import RandomLabel
from retrace_pl.unlearning.relax_loss import RelaxLoss
from retrace_pl.unlearning.retain_finetune import RetainFineTune
from retrace_pl.unlearning.retrain import Retrain
from retrace_pl.unlearning.salun import SalUn
from retrace_pl.unlearning.scrub import SCRUB
from retrace_pl.unlearning.scrub_r import SCRUBRewind
from retrace_pl.unlearning.ssd import SSD
from retrace_pl.unlearning.unsir import UNSIR
from retrace_pl.unlearning.weight_noise import WeightNoise
from retrace_pl.unlearning.woodfisher import WoodFisherInfluence

METHODS: dict[str, type[UnlearningMethod]] = {
    "retrain": Retrain,
    "retain_finetune": RetainFineTune,
    "gradient_ascent": GradientAscent,
    "negative_gradient": NegativeGradient,
    "boundary_shrink": BoundaryShrink,
    "boundary_expand": BoundaryExpand,
    "delete": Delete,
    "relax_loss": RelaxLoss,
    "guard": Guard,
    "random_label": RandomLabel,
    "bad_teacher": BadTeacher,
    "scrub": SCRUB,
    "scrub_r": SCRUBRewind,
    "salun": SalUn,
    "unsir": UNSIR,
    "ihl": InvertedHinge,
    "npo": NPO,
    "ssd": SSD,
    "fisher": FisherForgetting,
    "woodfisher": WoodFisherInfluence,
    "cf_k": CFk,
    "eu_k": EUk,
    "l1_sparse": L1Sparse,
    "noisy_finetune": NoisyFineTune,
    "perturbed_distillation": PerturbedDistillation,
    "identity": Identity,
    "weight_noise": WeightNoise,
}
"""Name -> class. `configs/unlearning/NAME.yaml` holds its published settings, `configs/unlearning/SETTING/NAME.yaml`
the preset tuned for a data set and architecture."""


def get_method(name: str) -> type[UnlearningMethod]:
    """Finds a method of the zoo.

    Args:
        name: A key of METHODS, such as "negative_gradient".

    Returns:
        The class.

    Raises:
        InputError: The zoo has no such method.
    """
    if name not in METHODS:
        raise InputError(f"method: the zoo has no {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
