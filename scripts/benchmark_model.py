"""Entry point of the rule benchmark_model."""

from stainfuser.recording import recorded
from stainfuser.stages.benchmark_model import benchmark_model

with recorded(snakemake):
    benchmark_model(
        images_dir=snakemake.params.images,
        split_path=snakemake.input.split,
        table_path=snakemake.output.table,
        comparison_path=snakemake.output.comparison,
        sheet_path=snakemake.output.sheet,
        figure_path=snakemake.output.figure,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
