"""Entry point of the rule summarize_evaluation."""

from stainfuser.recording import recorded
from stainfuser.stages.summarize_evaluation import summarize_evaluation

with recorded(snakemake):
    summarize_evaluation(
        table_paths=snakemake.input.table,
        distribution_path=snakemake.input.distribution,
        summary_path=snakemake.output.summary,
        figure_path=snakemake.output.figure,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
