# In: how fast slides are normalised (benchmark_slides), and the benchmark files of a run that is done.
# Out: hours and cost of cohorts on a modelled cluster, with the assumptions. Asked for by name only.
rule simulate_cohort:
    input:
        speed="results/benchmarks/slides.csv",
    output:
        table="results/simulation/cohort.csv",
        text="results/simulation/cohort.md",
        figure="results/simulation/cohort.png",
    log:
        "results/logs/simulate_cohort.log",
    benchmark:
        "results/benchmarks/simulate_cohort.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
        disk_mb=100,
        gpu=0,
    params:
        options=config["simulate_cohort"],
        benchmarks=lambda wildcards, input: os.path.dirname(input.speed),
    script:
        "../../scripts/simulate_cohort.py"
