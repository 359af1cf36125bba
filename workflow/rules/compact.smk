# In: real images and the table that divides them. Out: the operator head of the preset compact,
# its losses, its numbers on held-out tissue and a sheet of every held-out source x target.
rule train_operator_head:
    input:
        split=f"{workflow.basedir}/scripts/stainfuser/pretrained/data_split.csv",
    output:
        head=directory("results/compact/operator_head"),
        losses="results/compact/operator_head_losses.csv",
        summary="results/compact/operator_head_summary.csv",
        sheet="results/compact/operator_head_sheet.png",
    log:
        "results/logs/train_operator_head.log",
    benchmark:
        "results/benchmarks/train_operator_head.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        options={
            key: value
            for key, value in config["operator_head"].items()
            if key != "images"
        },
        seed=config["seed"],
        images=config["operator_head"]["images"],
        work="results/work/train_operator_head",
    script:
        "../../scripts/train_operator_head.py"
