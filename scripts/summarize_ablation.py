"""Entry point of the rule summarize_ablation."""

from stainfuser.recording import recorded
from stainfuser.stages.summarize_ablation import summarize_ablation

with recorded(snakemake):
    summarize_ablation(
        outcome_paths=snakemake.input.outcome,
        summary_path=snakemake.output.summary,
        figure_paths=snakemake.output.figure,
        seed=snakemake.params.seed,
        centre=snakemake.params.centre,
        crossed=snakemake.params.crossed,
        **snakemake.params.options,
    )
