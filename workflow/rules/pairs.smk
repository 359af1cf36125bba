# In: the clusters and their tiles, or a published SPI-2M folder. Out: training pairs in HDF5.
checkpoint plan_pairs:
    input:
        assignments="results/clusters/assignments.csv",
        tiles=tile_stores,
        target=target_images,
    output:
        plan="results/pairs/plan.csv",
        sources="results/pairs/sources.h5",
        targets="results/pairs/targets.h5",
    log:
        "results/logs/plan_pairs.log",
    benchmark:
        "results/benchmarks/plan_pairs.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60, per_slide=0.02),
        disk_mb=growing(2000),
        gpu=0,
    params:
        method=config["pairs"]["method"],
        sources_per_target=config["pairs"]["sources_per_target"],
        seed=config["seed"],
    script:
        "../../scripts/plan_pairs.py"


rule transfer_style:
    input:
        plan="results/pairs/plan.csv",
        sources="results/pairs/sources.h5",
        targets="results/pairs/targets.h5",
    output:
        shard="results/pairs/stylized/{pair_target}.h5",
        sheet="results/pairs/sheets/{pair_target}.jpg",
    log:
        "results/logs/transfer_style/{pair_target}.log",
    benchmark:
        "results/benchmarks/transfer_style/{pair_target}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(2000),
        gpu=0,
    params:
        options={
            key: value
            for key, value in config["pairs"].items()
            if key not in ("attach", "sources_per_target")
        },
        seed=config["seed"],
        work="results/work/transfer_style/{pair_target}",
    script:
        "../../scripts/transfer_style.py"


if config["pairs"]["attach"]:

    rule attach_pairs:
        input:
            folder=config["pairs"]["attach"],
        output:
            pairs="results/pairs/pairs.h5",
        log:
            "results/logs/attach_pairs.log",
        benchmark:
            "results/benchmarks/attach_pairs.tsv"
        conda:
            "../../envs/slides.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(120),
            disk_mb=growing(500),
            gpu=0,
        script:
            "../../scripts/attach_pairs.py"

else:

    rule merge_pairs:
        input:
            plan="results/pairs/plan.csv",
            sources="results/pairs/sources.h5",
            targets="results/pairs/targets.h5",
            shard=planned_shards("results/pairs/stylized", ".h5"),
        output:
            pairs="results/pairs/pairs.h5",
            scores="results/pairs/scores.csv",
        log:
            "results/logs/merge_pairs.log",
        benchmark:
            "results/benchmarks/merge_pairs.tsv"
        conda:
            "../../envs/slides.yaml"
        threads: 1
        resources:
            mem_mb=growing(2000),
            runtime=growing(30),
            disk_mb=growing(500),
            gpu=0,
        script:
            "../../scripts/merge_pairs.py"
