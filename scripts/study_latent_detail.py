"""Entry point of the rule study_latent_detail."""

from stainfuser.recording import recorded
from stainfuser.stages.study_latent_detail import study_latent_detail

with recorded(snakemake):
    study_latent_detail(
        phantoms_path=snakemake.input.phantoms,
        centre=snakemake.params.centre,
        train=snakemake.params.train,
        pairs=snakemake.params.pairs,
        work_dir=snakemake.params.work,
        answer_path=snakemake.output.answer,
        table_path=snakemake.output.table,
        figure_path=snakemake.output.figure,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
