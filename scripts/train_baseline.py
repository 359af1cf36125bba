"""Entry point of the rule train_baseline."""

from stainfuser.recording import recorded
from stainfuser.stages.train_baseline import train_baseline

with recorded(snakemake):
    train_baseline(
        baseline=snakemake.wildcards.baseline,
        tiles_paths=snakemake.input.tiles,
        target_path=snakemake.input.target,
        baseline_dir=snakemake.output.baseline,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        steps=snakemake.params.steps,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
