"""Unlearning methods: one small file each, driven by `retrace_pl.tasks.UnlearningTask` or by any loop of your own."""

from retrace_pl.unlearning.adapt import as_method
from retrace_pl.unlearning.bad_teacher import BadTeacher
from retrace_pl.unlearning.base import Batch, Batches, UnlearningMethod
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
from retrace_pl.unlearning.registry import METHODS, get_method
from retrace_pl.unlearning.relax_loss import RelaxLoss
from retrace_pl.unlearning.retain_finetune import RetainFineTune
from retrace_pl.unlearning.retrain import Retrain
from retrace_pl.unlearning.salun import SalUn
from retrace_pl.unlearning.scrub import SCRUB
from retrace_pl.unlearning.scrub_r import SCRUBRewind
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.ssd import SSD
from retrace_pl.unlearning.unsir import UNSIR
from retrace_pl.unlearning.weight_noise import WeightNoise
from retrace_pl.unlearning.woodfisher import WoodFisherInfluence

__all__ = [
    "METHODS",
    "NPO",
    "SCRUB",
    "SSD",
    "UNSIR",
    "BadTeacher",
    "Batch",
    "Batches",
    "BoundaryExpand",
    "BoundaryShrink",
    "CFk",
    "Choice",
    "Delete",
    "EUk",
    "FisherForgetting",
    "GradientAscent",
    "Guard",
    "Identity",
    "InvertedHinge",
    "L1Sparse",
    "NegativeGradient",
    "NoisyFineTune",
    "PerturbedDistillation",
    "RandomLabel",
    "RelaxLoss",
    "RetainFineTune",
    "Retrain",
    "SCRUBRewind",
    "SalUn",
    "Span",
    "UnlearningMethod",
    "WeightNoise",
    "WoodFisherInfluence",
    "as_method",
    "get_method",
]
