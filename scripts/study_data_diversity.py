"""Entry point of the rule study_data_diversity."""

from stainfuser.recording import recorded
from stainfuser.stages.study_data_diversity import study_data_diversity

with recorded(snakemake):
    study_data_diversity(
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
