# In: tiles, models, normalised slides and, for the demo, the truth. Out: what every arm makes of the
# same tiles, the metrics, their summary with bootstrap intervals, and figures.
rule sample_evaluation_tiles:
    input:
        tiles="results/tiles/{slide}.h5",
        truth=if_truth_known("results/demo/truth/{slide}.svs"),
        nuclei=if_truth_known("results/demo/nuclei/{slide}.png"),
    output:
        sample="results/evaluation/sample/{slide}.h5",
    log:
        "results/logs/sample_evaluation_tiles/{slide}.log",
    benchmark:
        "results/benchmarks/sample_evaluation_tiles/{slide}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
        disk_mb=growing(200),
        gpu=0,
    params:
        options={
            key: config["evaluate"][key] for key in ("tiles_per_slide", "max_tiles")
        },
        slides=min(len(COHORT), config["evaluate"]["max_slides"]),
        truth_target="demo",
        seed=config["seed"],
    script:
        "../../scripts/sample_evaluation_tiles.py"


rule apply_arm:
    input:
        sample=evaluation_samples,
        target=target_images,
        normalized=if_arm_needs("delivered", normalized_slides),
        baseline=if_arm_needs("baseline", baseline_folders),
        model=if_arm_needs("model", MODEL),
        model_files=if_arm_needs("model", model_files()),
        trained=if_arm_needs("trained", if_trained_beside(TRAINED)),
    output:
        images="results/evaluation/arms/{arm}.h5",
        record="results/evaluation/arms/{arm}.json",
    log:
        "results/logs/apply_arm/{arm}.log",
    benchmark:
        "results/benchmarks/apply_arm/{arm}.tsv"
    wildcard_constraints:
        arm=rf"(?!(?:{SLOW_ARMS})\b)[a-z0-9_]+",
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000, per_measured=10),
        runtime=growing(240),
        disk_mb=growing(500, per_measured=10),
        gpu=0,
    params:
        options={"slow_arm_tiles": config["evaluate"]["slow_arm_tiles"]},
        style=if_arm_needs("weights", config["pairs"], {}),
        jobs=JOBS,
        seed=config["seed"],
    script:
        "../../scripts/apply_arm.py"


# The same for arms that send every tile through a network many times: worth a GPU.
use rule apply_arm as apply_slow_arm with:
    log:
        "results/logs/apply_slow_arm/{arm}.log",
    benchmark:
        "results/benchmarks/apply_slow_arm/{arm}.tsv"
    wildcard_constraints:
        arm=SLOW_ARMS,
    resources:
        mem_mb=growing(4000, per_measured=10),
        runtime=growing(240),
        disk_mb=growing(500, per_measured=10),
        gpu=1,


rule measure_arm:
    input:
        images="results/evaluation/arms/{arm}.h5",
        sample=evaluation_samples,
        target=target_images,
    output:
        table="results/evaluation/metrics/{arm}.parquet",
    log:
        "results/logs/measure_arm/{arm}.log",
    benchmark:
        "results/benchmarks/measure_arm/{arm}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
        disk_mb=100,
        gpu=0,
    params:
        options={"protocol": config["evaluate"]["protocol"]},
    script:
        "../../scripts/measure_arm.py"


rule measure_distribution:
    input:
        arm=expand("results/evaluation/arms/{arm}.h5", arm=EVALUATED_ARMS),
        sample=evaluation_samples,
        target=target_images,
    output:
        table="results/evaluation/metrics/distribution.csv",
    log:
        "results/logs/measure_distribution.log",
    benchmark:
        "results/benchmarks/measure_distribution.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000, per_measured=1),
        runtime=growing(120),
        disk_mb=100,
        gpu=0,
    params:
        options={
            key: config["evaluate"][key]
            for key in ("inception_weights", "bootstrap_samples", "confidence")
        },
        seed=config["seed"],
    script:
        "../../scripts/measure_distribution.py"


rule draw_examples:
    input:
        arm=expand("results/evaluation/arms/{arm}.h5", arm=EVALUATED_ARMS),
        sample=evaluation_samples,
        target=target_images,
    output:
        examples=report(
            "results/evaluation/examples.png",
            caption="../report/examples.rst",
            category="Evaluation",
        ),
    log:
        "results/logs/draw_examples.log",
    benchmark:
        "results/benchmarks/draw_examples.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000, per_measured=1),
        runtime=growing(30),
        disk_mb=100,
        gpu=0,
    script:
        "../../scripts/draw_examples.py"


rule summarize_evaluation:
    input:
        table=expand("results/evaluation/metrics/{arm}.parquet", arm=EVALUATED_ARMS),
        distribution="results/evaluation/metrics/distribution.csv",
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
        mem_mb=growing(4000, per_measured=0.1),
        runtime=growing(60),
        disk_mb=100,
        gpu=0,
    params:
        options={
            key: config["evaluate"][key] for key in ("bootstrap_samples", "confidence")
        },
        seed=config["seed"],
    script:
        "../../scripts/summarize_evaluation.py"


rule check_consistency:
    input:
        slide=slide_file,
        normalized="results/normalized/{target}/{slide}.svs",
        record="results/normalized/{target}/{slide}.json",
        mask="results/masks/{slide}.png",
        sample="results/evaluation/sample/{slide}.h5",
        delivered="results/evaluation/arms/delivered.h5",
        target="results/targets/{target}.png",
        model=MODEL,
        model_files=model_files(),
    output:
        report="results/evaluation/consistency/{target}/{slide}.json",
    log:
        "results/logs/check_consistency/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/check_consistency/{target}/{slide}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
        disk_mb=100,
        gpu=0,
    params:
        seed=config["seed"],
    script:
        "../../scripts/check_consistency.py"
