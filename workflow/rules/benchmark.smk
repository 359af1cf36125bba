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
        mem_mb=4000,
        runtime=240,
    params:
        options=config["benchmark_slides"],
        normalize=config["normalize"],
        seed=config["seed"],
        work="results/work/benchmark_slides",
    script:
        "../../scripts/benchmark_slides.py"
