"""Entry point of the rule train_normalizer."""

from stainfuser.recording import recorded
from stainfuser.stages.train_normalizer import train_normalizer

with recorded(snakemake):
    train_normalizer(
        pairs_path=snakemake.input.pairs,
        model_dir=snakemake.output.model,
        losses_path=snakemake.output.losses,
        samples_path=snakemake.output.samples,
        curves_path=snakemake.output.curves,
        validation_path=snakemake.output.validation,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        nodes=snakemake.resources.get("nodes", 1),
        **snakemake.params.options,
    )
