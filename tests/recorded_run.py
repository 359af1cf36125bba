"""A run of a few jobs that write little files, recorded as the real ones are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from stainfuser.configuration import write_resolved
from stainfuser.recording import recorded
from stainfuser.stages.audit import audit
from stainfuser.stages.record_provenance import record_provenance

RULE_PARAMS = {"normalize_slide": {"options": {"mode": "operator", "tile_px": 256}, "seed": 1}}
SLIDE, TARGET, SHARD = "results/normalized/t/a.svs", "results/targets/t.png", "t000"


def job(
    rule: str,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    wildcards: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Any:
    """Return what Snakemake gives to the script of a rule."""
    name = "/".join([rule, *(wildcards or {}).values()])
    return SimpleNamespace(
        rule=rule,
        input=InputFiles(fromdict=inputs),
        output=OutputFiles(fromdict=outputs),
        params=Params(fromdict=params or {}),
        wildcards=Wildcards(fromdict=wildcards or {}),
        log=Log(toclone=[f"results/logs/{name}.log"]),
        config=config or {"seed": 1, "audit": None},
        threads=1,
    )


def run_job(snakemake: Any, text: str = "") -> None:
    """Run a stage that writes the names of its inputs into each output."""
    with recorded(snakemake):
        for path in snakemake.output:
            content = f"{path} {text} of {[Path(read).name for read in snakemake.input]}"
            if Path(path).suffix:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(content)
            else:
                Path(path).mkdir(parents=True)
                (Path(path) / "config.json").write_text("{}")
                (Path(path) / "model.safetensors").write_text(content)


def given_files(folder: Path) -> dict[str, Path]:
    """Write what a user would give: a slide and a target image, somewhere else."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"slide": folder / "a.svs", "target": folder / "target.png"}
    for name, path in files.items():
        path.write_text(f"the {name} as it was scanned")
    return files


def run_all(given: dict[str, Path]) -> None:
    """Make everything, in the present folder: slide to tiles to pairs to model to slide."""
    Path(".snakemake").mkdir(exist_ok=True)
    config = {"seed": 1, "slides": str(given["slide"]), "target": str(given["target"])}
    write_resolved(config, "results/config.yaml", ".snakemake/config.yaml")
    slide, json_ = str(given["slide"]), "results/slides/a.json"
    a = {"slide": "a"}
    run_job(
        job("check_target", {"source": str(given["target"])}, {"image": TARGET}, {"target": "t"})
    )
    run_job(job("probe_slide", {"slide": slide}, {"json": json_}, a, {"slide_path": slide}))
    tiles = "results/tiles/a.h5"
    run_job(job("extract_tiles", {"slide": slide, "json": json_}, {"tiles": tiles}, a))
    shard = f"results/pairs/stylized/{SHARD}.h5"
    run_job(job("transfer_style", {"tiles": tiles}, {"shard": shard}, {"pair_target": SHARD}))
    run_job(job("train_normalizer", {"shard": shard}, {"model": "results/model"}))
    normalize(slide)
    config_file = {"config": "results/config.yaml", "index": json_}
    run_job(job("accept_slides", config_file, {"accepted": "results/slides/accepted.txt"}))


def normalize(slide: str) -> None:
    """Run the job of the last rule alone."""
    inputs = {"slide": slide, "json": "results/slides/a.json", "target": TARGET}
    inputs["model"] = "results/model"
    outputs = {"slide": SLIDE, "record": "results/normalized/t/a.json"}
    wildcards = {"target": "t", "slide": "a"}
    run_job(job("normalize_slide", inputs, outputs, wildcards, RULE_PARAMS["normalize_slide"]))


def record_all() -> None:
    """Write the crate, as the rule record_provenance does."""
    folder = "results/provenance"
    outputs = {
        "crate": f"{folder}/ro-crate-metadata.json",
        "page": f"{folder}/ro-crate-preview.html",
        "picture": f"{folder}/lineage.svg",
        "workflow": f"{folder}/workflow",
    }
    this = job("record_provenance", {"slide": SLIDE}, outputs)
    with recorded(this):
        record_provenance(
            records_dir=f"{folder}/jobs",
            run_dir=".",
            crate_path=this.output.crate,
            page_path=this.output.page,
            picture_path=this.output.picture,
            workflow_dir=this.output.workflow,
            license="https://spdx.org/licenses/CC-BY-4.0",
        )


def audit_run(given: dict[str, Path], artefact: str | None = None, **changes: Any) -> dict:
    """Audit the present folder; return what was found. A run that is not intact raises."""
    folder = "results/provenance"
    known = {
        "given_paths": list(given.values()),
        "current_params": RULE_PARAMS,
        "model_dir": None,
    }
    try:
        audit(
            artefact=artefact,
            run_dir=".",
            records_dir=f"{folder}/jobs",
            page_path=f"{folder}/audit.md",
            details_path=f"{folder}/audit.json",
            picture_path=f"{folder}/audit.svg",
            **{**known, **changes},
        )
    finally:
        details = Path(f"{folder}/audit.json")
        found = json.loads(details.read_text()) if details.exists() else {}
        audit_run.found = found
    return found
