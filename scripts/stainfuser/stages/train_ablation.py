"""Train one instance of the ablation and measure it; one that fails says why and stops no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stainfuser.ablation_plan import plain_instance
from stainfuser.diffusion.ablation_data import read_phantoms
from stainfuser.diffusion.ablation_training import measured_rows, trained_model
from stainfuser.diffusion.arm_results import FAILURES
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.files import sha256_file, write_json
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp


def train_ablation(
    *,
    phantoms_path: str | Path,
    outcome_path: str | Path,
    work_dir: str | Path,
    seed: int,
    instance: Mapping[str, Any],
    train: Mapping[str, Any],
    pairs: Mapping[str, Any],
    threads: int = 1,
) -> None:
    """Write the outcome of an instance as JSON: instance, rows, failure (a sentence, or null).

    Parameters
    ----------
    phantoms_path
        What `make_ablation_phantoms` wrote.
    work_dir
        Folder of checkpoints and finished models, shared by all instances.
    instance
        Axis → value, see `ablation_plan.AXES`.
    train, pairs
        The sections of the configuration, for all that no axis changes.
    """
    instance = plain_instance(instance)
    stamp = make_stamp(
        "train_ablation",
        {"seed": seed, "instance": instance, "train": dict(train), "pairs": dict(pairs)},
        phantoms_sha256=sha256_file(phantoms_path),
    )
    rows: list[dict[str, Any]] = []
    failure = None
    try:
        with reproducible(threads):
            phantoms = read_phantoms(phantoms_path)
            key = stamp["phantoms_sha256"]
            model = trained_model(instance, phantoms, train, pairs, key, Path(work_dir), seed)
            rows = measured_rows(model, phantoms, instance["run_px"], instance["sampling_steps"])
    except FAILURES as error:
        failure = " ".join(str(error).split()) or type(error).__name__
        LOGGER.warning("this instance failed: %s", failure)
    outcome = {"instance": instance, "rows": rows, "failure": failure, "stamp": stamp}
    write_json(outcome_path, outcome)
