"""Entry point of the rule study_scanner_variation."""

from stainfuser.recording import recorded
from stainfuser.stages.study_scanner_variation import study_scanner_variation

with recorded(snakemake):
    study_scanner_variation(
        split_path=snakemake.input.split,
        model_dir=snakemake.input.model,
        images_dir=snakemake.params.images,
        answer_path=snakemake.output.answer,
        table_path=snakemake.output.table,
        figure_path=snakemake.output.figure,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
