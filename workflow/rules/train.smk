# In: the training pairs. Out: the model in diffusers' layout, its loss table, pictures and numbers.
rule train_normalizer:
    input:
        pairs="results/pairs/pairs.h5",
        initial=initial_model_files(),
    output:
        model=directory(TRAINED),
        losses="results/train/losses.csv",
        samples="results/train/samples.png",
        curves="results/train/curves.png",
        validation="results/train/validation.json",
    log:
        "results/logs/train_normalizer.log",
    benchmark:
        "results/benchmarks/train_normalizer.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 2
    resources:
        mem_mb=growing(16000),
        runtime=growing(1440),
        disk_mb=growing(20000),
        gpu=1,
    params:
        options=config["train"],
        seed=config["seed"],
        work="results/work/train_normalizer",
    script:
        "../../scripts/train_normalizer.py"
