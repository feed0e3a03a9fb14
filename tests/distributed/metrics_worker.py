"""One of two gloo processes: feeds its half of the candidates to every metric and writes what it computes.

Usage: metrics_worker.py RANK WORLD_SIZE INIT_FILE OUTPUT (run by test_distributed_metrics.py).
"""

import json
import sys

import torch
from torch import distributed

from retrace_pl.metrics import (
    SSIM,
    CentredCosine,
    Diversity,
    FeatureFID,
    FeatureKID,
    FeatureKL,
    LabelKL,
    MembershipAUC,
    NearestMSE,
    NearestPSNR,
    PairwiseMSE,
    PrecisionRecall,
    SuccessRate,
)


def compute(rank: int, world_size: int) -> dict[str, float | dict[str, float]]:
    """Metrics over this rank's share of one seeded draw; the ranks hold different numbers of candidates."""
    generator = torch.Generator().manual_seed(0)
    records, images = (torch.rand(n, 1, 16, 16, generator=generator) for n in (15, 21))
    reference, features = (torch.randn(n, 6, generator=generator) for n in (15, 21))
    labels = torch.randint(0, 4, (21,), generator=generator)
    scores = torch.rand(21, generator=generator)
    cases = {
        NearestMSE(records): (images,),
        NearestPSNR(records): (images,),
        PairwiseMSE(records): (images,),
        CentredCosine(records, records.mean(dim=0)): (images,),
        SSIM(records): (images,),
        Diversity(): (images,),
        FeatureFID(reference): (features,),
        FeatureKID(reference): (features,),
        FeatureKL(reference): (features,),
        PrecisionRecall(reference): (features,),
        LabelKL(labels[:7], 4): (labels,),
        SuccessRate(): (scores > 0.3,),
        MembershipAUC(): (scores, labels > 1),
    }
    results: dict[str, float | dict[str, float]] = {}
    for metric, inputs in cases.items():
        for batch in zip(*(x[rank::world_size].split(4) for x in inputs), strict=True):
            metric.update(*batch)
        value = metric.compute()
        plain = {k: float(v) for k, v in value.items()} if isinstance(value, dict) else float(value)
        results[type(metric).__name__] = plain
    return results


if __name__ == "__main__":
    rank, world_size = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world_size)
    with open(sys.argv[4], "w") as file:
        json.dump(compute(rank, world_size), file)
    distributed.destroy_process_group()
