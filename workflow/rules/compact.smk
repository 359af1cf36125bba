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
        mem_mb=growing(8000),
        runtime=growing(240),
        disk_mb=growing(2000),
        gpu=0,
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


# In: the operator head, real images and the table that divides them. Out: the diffusion part of the
# preset compact beside the head, its losses, curves, held-out tissue as a sheet and as numbers.
rule train_compact_diffusion:
    input:
        split=f"{workflow.basedir}/scripts/stainfuser/pretrained/data_split.csv",
        head="results/compact/operator_head",
    output:
        index="results/compact/model_index.json",
        vae=directory("results/compact/vae"),
        unet=directory("results/compact/unet"),
        controlnet=directory("results/compact/controlnet"),
        scheduler=directory("results/compact/scheduler"),
        losses="results/compact/diffusion_losses.csv",
        curves="results/compact/diffusion_curves.png",
        samples="results/compact/diffusion_samples.png",
        validation="results/compact/diffusion_validation.json",
    log:
        "results/logs/train_compact_diffusion.log",
    benchmark:
        "results/benchmarks/train_compact_diffusion.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        disk_mb=growing(5000),
        gpu=0,
    params:
        options=config["compact_diffusion"],
        seed=config["seed"],
        images=config["operator_head"]["images"],
        work="results/work/train_compact_diffusion",
    script:
        "../../scripts/train_compact_diffusion.py"
