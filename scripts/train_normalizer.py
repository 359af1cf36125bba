"""Entry point of the rule train_normalizer."""

from stainfuser.logs import logged
from stainfuser.stages.train_normalizer import train_normalizer

with logged(snakemake.log[0]):
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
        **snakemake.params.options,
    )
