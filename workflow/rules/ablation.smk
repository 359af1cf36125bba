# In: phantoms painted in laboratories drawn at random. Out: one small training per instance of a
# parameter space, measured against the exact truth; a table and a figure per axis.
from snakemake.utils import Paramspace

ABLATION_SPACE = Paramspace(ABLATION, filename_params="*", filename_sep=",")


rule make_ablation_phantoms:
    output:
        phantoms="results/ablation/phantoms.h5",
    log:
        "results/logs/make_ablation_phantoms.log",
    benchmark:
        "results/benchmarks/make_ablation_phantoms.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        disk_mb=growing(2000),
        gpu=0,
    params:
        options={
            key: config["ablation"][key]
            for key in (
                "tile_px",
                "sections",
                "sources",
                "sources_per_target",
                "test_pairs",
            )
        },
        targets=max(row["targets"] for row in ABLATION.rows),
        seed=config["seed"],
    script:
        "../../scripts/make_ablation_phantoms.py"


rule train_ablation:
    input:
        phantoms="results/ablation/phantoms.h5",
    output:
        outcome=f"results/ablation/instances/{ABLATION_SPACE.wildcard_pattern}.json",
    log:
        f"results/logs/train_ablation/{ABLATION_SPACE.wildcard_pattern}.log",
    benchmark:
        f"results/benchmarks/train_ablation/{ABLATION_SPACE.wildcard_pattern}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(4000),
        gpu=0,
    params:
        instance=ABLATION_SPACE.instance,
        train=config["train"],
        pairs=config["pairs"],
        seed=config["seed"],
        work="results/work/train_ablation",
    script:
        "../../scripts/train_ablation.py"


rule summarize_ablation:
    input:
        outcome=lambda wildcards: expand(
            "results/ablation/instances/{instance}.json",
            instance=ABLATION_SPACE.instance_patterns,
        ),
    output:
        summary=report(
            "results/ablation/summary.csv",
            caption="../report/ablation.rst",
            category="Ablation",
        ),
        figure=report(
            [
                f"results/ablation/figures/{axis}.png"
                for axis, values in config["ablation"]["axes"].items()
                if values
            ],
            caption="../report/ablation.rst",
            category="Ablation",
        ),
    log:
        "results/logs/summarize_ablation.log",
    benchmark:
        "results/benchmarks/summarize_ablation.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
        disk_mb=growing(1000),
        gpu=0,
    params:
        options={
            key: config["ablation"][key] for key in ("bootstrap_samples", "confidence")
        },
        centre=config["ablation"]["centre"],
        crossed=config["ablation"]["crossed"],
        seed=config["seed"],
    script:
        "../../scripts/summarize_ablation.py"
