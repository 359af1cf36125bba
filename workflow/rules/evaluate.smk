# In: tiles, normalised slides and, for the demo, the truth. Out: the long metric table, its summary
# with bootstrap intervals, and figures.
rule evaluate_tiles:
    input:
        tiles=tile_stores,
        normalized=normalized_slides,
        record=slide_records,
        truth=truth_slides,
        target=target_images,
        model=MODEL,
        model_files=model_files(),
        trained=if_trained_beside(TRAINED),
    output:
        table="results/evaluation/tiles.parquet",
        examples=report(
            "results/evaluation/examples.png",
            caption="../report/examples.rst",
            category="Evaluation",
        ),
    log:
        "results/logs/evaluate_tiles.log",
    benchmark:
        "results/benchmarks/evaluate_tiles.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 2
    resources:
        mem_mb=growing(6000, per_slide=0.1),
        runtime=growing(240, per_slide=0.1),
        disk_mb=growing(1000),
        gpu=0,
    params:
        options={
            key: config["evaluate"][key] for key in ("tiles_per_slide", "max_tiles")
        },
        seed=config["seed"],
    script:
        "../../scripts/evaluate_tiles.py"


rule summarize_evaluation:
    input:
        table="results/evaluation/tiles.parquet",
    output:
        summary=report(
            "results/evaluation/summary.csv",
            caption="../report/summary.rst",
            category="Evaluation",
        ),
        figure=report(
            "results/evaluation/overview.png",
            caption="../report/overview.rst",
            category="Evaluation",
        ),
    log:
        "results/logs/summarize_evaluation.log",
    benchmark:
        "results/benchmarks/summarize_evaluation.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000, per_slide=0.1),
        runtime=growing(60),
        disk_mb=growing(100),
        gpu=0,
    params:
        options={
            key: config["evaluate"][key] for key in ("bootstrap_samples", "confidence")
        },
        seed=config["seed"],
    script:
        "../../scripts/summarize_evaluation.py"
