# In: the model. Out: how fast, in how little memory and how seamless a slide is normalised, beside
# copying it and beside the classical methods. Nothing else runs meanwhile; asked for by name only.
rule benchmark_slides:
    input:
        model=MODEL,
    output:
        table="results/benchmarks/slides.csv",
        details="results/benchmarks/slides.json",
        figure="results/benchmarks/slides.png",
    log:
        "results/logs/benchmark_slides.log",
    benchmark:
        "results/benchmarks/benchmark_slides.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: workflow.cores
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        disk_mb=growing(5000),
        gpu=0,
    params:
        options=config["benchmark_slides"],
        normalize=config["normalize"],
        seed=config["seed"],
        work="results/work/benchmark_slides",
    script:
        "../../scripts/benchmark_slides.py"


# In: a model, and real images with the table that divides them. Out: its numbers beside classical
# methods, how they compare with what is asked, a sheet of every source in every target's stain.
rule benchmark_model:
    input:
        split=f"{workflow.basedir}/scripts/stainfuser/pretrained/data_split.csv",
    output:
        table="results/benchmarks/model.csv",
        comparison="results/benchmarks/model.md",
        sheet="results/benchmarks/model_sheet.png",
        figure="results/benchmarks/model.png",
    log:
        "results/logs/benchmark_model.log",
    benchmark:
        "results/benchmarks/benchmark_model.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 2
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
        disk_mb=growing(1000),
        gpu=0,
    params:
        options=config["benchmark_model"],
        seed=config["seed"],
        images=config["operator_head"]["images"],
    script:
        "../../scripts/benchmark_model.py"
