"""Entry point of the rule benchmark_slides."""

from stainfuser.recording import recorded
from stainfuser.stages.benchmark_slides import benchmark_slides
from stainfuser.stages.normalize_slide import normalize_slide

with recorded(snakemake):
    benchmark_slides(
        normalize=normalize_slide,
        normalize_options=snakemake.params.normalize,
        model_dir=snakemake.input.model,
        table_path=snakemake.output.table,
        details_path=snakemake.output.details,
        figure_path=snakemake.output.figure,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
