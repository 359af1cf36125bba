"""Entry point of the rule score_downstream."""

from stainfuser.recording import recorded
from stainfuser.stages.score_downstream import score_downstream

with recorded(snakemake):
    score_downstream(
        table_paths=snakemake.input.table,
        record_paths=snakemake.input.record,
        picture_paths=snakemake.input.picture,
        scores_path=snakemake.output.scores,
        summary_path=snakemake.output.summary,
        figure_path=snakemake.output.figure,
        sheet_path=snakemake.output.sheet,
        seed=snakemake.params.seed,
        bootstrap_samples=snakemake.params.bootstrap_samples,
        confidence=snakemake.params.confidence,
    )
