"""Entry point of the rule summarize_evaluation."""

from stainfuser.logs import logged
from stainfuser.stages.summarize_evaluation import summarize_evaluation

with logged(snakemake.log[0]):
    summarize_evaluation(
        table_path=snakemake.input.table,
        summary_path=snakemake.output.summary,
        figure_path=snakemake.output.figure,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
