# In: phantoms, and real images where there are some. Out: a written answer with its numbers and a
# figure for each of the paper's open questions.
rule study_latent_detail:
    input:
        phantoms="results/ablation/phantoms.h5",
    output:
        answer=report(
            "results/studies/latent_detail.md",
            caption="../report/studies.rst",
            category="Studies",
        ),
        table="results/studies/latent_detail.csv",
        figure=report(
            "results/studies/latent_detail.png",
            caption="../report/studies.rst",
            category="Studies",
        ),
    log:
        "results/logs/study_latent_detail.log",
    benchmark:
        "results/benchmarks/study_latent_detail.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(4000),
        gpu=0,
    params:
        options={
            key: config["studies"][key]
            for key in ("latents", "bootstrap_samples", "confidence")
        },
        centre=config["ablation"]["centre"],
        train=config["train"],
        pairs=config["pairs"],
        work="results/work/train_ablation",
        seed=config["seed"],
    script:
        "../../scripts/study_latent_detail.py"


rule study_data_diversity:
    output:
        answer=report(
            "results/studies/data_diversity.md",
            caption="../report/studies.rst",
            category="Studies",
        ),
        table="results/studies/data_diversity.csv",
        figure=report(
            "results/studies/data_diversity.png",
            caption="../report/studies.rst",
            category="Studies",
        ),
    log:
        "results/logs/study_data_diversity.log",
    benchmark:
        "results/benchmarks/study_data_diversity.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(4000),
        gpu=0,
    params:
        options={
            key: config["studies"][key]
            for key in (
                "tile_px",
                "sections",
                "pairs_per_target",
                "test_pairs",
                "bootstrap_samples",
                "confidence",
            )
        },
        centre=config["ablation"]["centre"],
        train=config["train"],
        pairs=config["pairs"],
        work="results/work/train_ablation",
        seed=config["seed"],
    script:
        "../../scripts/study_data_diversity.py"


rule study_scanner_variation:
    input:
        split=f"{workflow.basedir}/scripts/stainfuser/pretrained/data_split.csv",
        model=MODEL,
        model_files=model_files(),
    output:
        answer=report(
            "results/studies/scanner_variation.md",
            caption="../report/studies.rst",
            category="Studies",
        ),
        table="results/studies/scanner_variation.csv",
        figure=report(
            "results/studies/scanner_variation.png",
            caption="../report/studies.rst",
            category="Studies",
        ),
    log:
        "results/logs/study_scanner_variation.log",
    benchmark:
        "results/benchmarks/study_scanner_variation.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(4000),
        gpu=0,
    params:
        options={
            key: config["studies"][key]
            for key in ("scanners", "fan_step", "bootstrap_samples", "confidence")
        },
        images=config["operator_head"]["images"],
        seed=config["seed"],
    script:
        "../../scripts/study_scanner_variation.py"
