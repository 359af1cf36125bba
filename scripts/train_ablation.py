"""Entry point of the rule train_ablation."""

from stainfuser.recording import recorded
from stainfuser.stages.train_ablation import train_ablation

with recorded(snakemake):
    train_ablation(
        phantoms_path=snakemake.input.phantoms,
        outcome_path=snakemake.output.outcome,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        instance=snakemake.params.instance,
        train=snakemake.params.train,
        pairs=snakemake.params.pairs,
        threads=snakemake.threads,
    )
