# In: phantoms, or a data set of outlined nuclei, and the arms of the evaluation. Out: a network that
# segments and classifies nuclei in one stain, and how well it does in others, raw and after each arm.
rule prepare_downstream:
    input:
        data=downstream_files(),
    output:
        data="results/evaluation/downstream/data.h5",
    log:
        "results/logs/prepare_downstream.log",
    benchmark:
        "results/benchmarks/prepare_downstream.tsv"
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
            key: config["downstream"][key]
            for key in (
                "dataset",
                "laboratory",
                "train_on",
                "shifts",
                "train_tiles",
                "test_tiles",
                "references",
                "tile_px",
                "mpp",
            )
        },
        seed=config["seed"],
    script:
        "../../scripts/prepare_downstream.py"


rule train_segmenter:
    input:
        data="results/evaluation/downstream/data.h5",
    output:
        weights="results/evaluation/downstream/segmenter/model.safetensors",
        config="results/evaluation/downstream/segmenter/config.json",
        losses="results/evaluation/downstream/segmenter/losses.csv",
        samples="results/evaluation/downstream/segmenter/samples.png",
    log:
        "results/logs/train_segmenter.log",
    benchmark:
        "results/benchmarks/train_segmenter.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(200),
        gpu=0,
    params:
        options={
            key: config["downstream"][key]
            for key in ("steps", "batch_size", "crop_px", "learning_rate", "widths")
        },
        segmenter=lambda wildcards, output: os.path.dirname(output.weights),
        seed=config["seed"],
    script:
        "../../scripts/train_segmenter.py"


rule segment_arm:
    input:
        data="results/evaluation/downstream/data.h5",
        weights="results/evaluation/downstream/segmenter/model.safetensors",
        segmenter="results/evaluation/downstream/segmenter/config.json",
        baseline=if_arm_needs("baseline", if_truth_known(downstream_baselines)),
        model=if_arm_needs("model", MODEL),
        model_files=if_arm_needs("model", model_files()),
        trained=if_arm_needs("trained", if_trained_beside(TRAINED)),
    output:
        table="results/evaluation/downstream/arms/{arm}.parquet",
        record="results/evaluation/downstream/arms/{arm}.json",
        picture="results/evaluation/downstream/arms/{arm}.png",
    log:
        "results/logs/segment_arm/{arm}.log",
    benchmark:
        "results/benchmarks/segment_arm/{arm}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(200),
        gpu=0,
    params:
        options={"slow_arm_tiles": config["downstream"]["slow_arm_tiles"]},
        segmenter=lambda wildcards, input: os.path.dirname(input.weights),
        style=if_arm_needs("weights", config["pairs"], {}),
        seed=config["seed"],
    script:
        "../../scripts/segment_arm.py"


rule score_downstream:
    input:
        table=downstream_products(".parquet"),
        record=downstream_products(".json"),
        picture=downstream_products(".png"),
    output:
        scores="results/evaluation/downstream/scores.parquet",
        summary=report(
            "results/evaluation/downstream/summary.csv",
            caption="../report/downstream.rst",
            category="Evaluation",
        ),
        figure=report(
            "results/evaluation/downstream/overview.png",
            caption="../report/downstream.rst",
            category="Evaluation",
        ),
        sheet="results/evaluation/downstream/segmentations.jpg",
    log:
        "results/logs/score_downstream.log",
    benchmark:
        "results/benchmarks/score_downstream.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
        disk_mb=growing(200),
        gpu=0,
    params:
        bootstrap_samples=config["evaluate"]["bootstrap_samples"],
        confidence=config["evaluate"]["confidence"],
        seed=config["seed"],
    script:
        "../../scripts/score_downstream.py"
