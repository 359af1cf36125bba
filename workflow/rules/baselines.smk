# In: the tile stores of the slides that are measured and a target. Out: a baseline of the literature,
# trained small on unpaired tiles, with its losses and samples.
rule train_baseline:
    input:
        tiles=evaluated_tiles,
        target="results/targets/{target}.png",
    output:
        baseline=directory("results/baselines/{target}/{baseline}"),
    log:
        "results/logs/train_baseline/{target}/{baseline}.log",
    benchmark:
        "results/benchmarks/train_baseline/{target}/{baseline}.tsv"
    wildcard_constraints:
        baseline="cagan_like|cyclegan_like|staindiff_like",
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        disk_mb=growing(2000),
        gpu=0,
    params:
        options={
            key: value for key, value in config["baselines"].items() if key != "steps"
        },
        steps=lambda wildcards: config["baselines"]["steps"][wildcards.baseline],
        seed=config["seed"],
        work="results/work/train_baseline/{target}/{baseline}",
    script:
        "../../scripts/train_baseline.py"
