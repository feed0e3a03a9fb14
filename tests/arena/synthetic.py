"""Records of an arena that never ran, for everything that only shows records."""

from retrace_pl.arena.record import CellRecord

CONFIG = {
    "name": "Synthetic arena",
    "audit": "digits.yaml",
    "methods": "all",
    "seeds": [0, 1, 2],
    "forget_classes": [3],
    "access": ["black", "white"],
    "attacks": ["ppo"],
    "gate": {"retain_margin": 0.05, "mia_margin": 0.1, "forget_margin": 0.1},
    "level": 0.95,
    "bootstrap_samples": 500,
}


def cell_id(method, strength=1.0, seed=0, forget_class=3, access="black", attack="ppo"):
    return f"{method}-x{strength:g}-seed{seed}-class{forget_class}-{access}-{attack}"


def leak(value, half=0.04):
    ends = {"low": None if value is None else value - half, "high": None if value is None else value + half}
    return {"value": value, **ends, "level": 0.95, "repeats": 1, "note": "", "metric": "sr_oracle"}


def arm(success, fid=40.0):
    return {"sr_oracle": success, "fid_oracle": fid, "diversity": 0.05, "mse": 0.03, "instance": {}, "intervals": {}}


def quality(retain, forget, mia, test=0.9):
    return {"retain_acc": retain, "forget_acc": forget, "test_acc": test, "mia_auc": mia}


def record(
    method,
    seed=0,
    access="black",
    *,
    class_name=None,
    strength=1.0,
    forget_class=3,
    attack="ppo",
    prior=0.1,
    retrain=0.6,
    avoidable=0.1,
    retain=0.97,
    forget=0.0,
    mia=0.5,
    seconds=2.0,
    error=None,
    verdict="leak",
):
    """A cell; `avoidable` decides the success of its attack."""
    name = cell_id(method, strength, seed, forget_class, access, attack)
    made = CellRecord(
        id=name,
        method=method,
        class_name=class_name or method.title().replace("_", ""),
        strength=strength,
        seed=seed,
        forget_class=forget_class,
        access=access,
        attack=attack,
        status="done" if error is None else "failed",
        settings_hash="0",
        error=error,
        seconds={"unlearning": seconds, "total": 60.0},
        run=f"cells/{name}/run",
    )
    if error is not None:
        return made
    success = None if avoidable is None else retrain + avoidable
    made.unlearning, made.original, made.retrained = (
        quality(retain, forget, mia),
        quality(0.99, 0.99, 0.6),
        quality(0.98, 0.0, 0.5),
    )
    made.attack_result, made.prior, made.matched_retrain = arm(success, 30.0), arm(prior, 70.0), arm(retrain, 35.0)
    made.leakage = {
        "excess": leak(None if success is None else success - prior),
        "avoidable": leak(avoidable),
        "record": leak(0.01, 0.005),
    }
    made.verdict, made.verdict_reason = verdict, f"because it is {verdict}"
    made.queries, made.top_k, made.repeats = 1024, 64, 1
    return made
