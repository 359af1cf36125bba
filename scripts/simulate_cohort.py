"""Entry point of the rule simulate_cohort."""

from stainfuser.recording import recorded
from stainfuser.stages.simulate_cohort import simulate_cohort

with recorded(snakemake):
    simulate_cohort(
        speed_path=snakemake.input.speed,
        benchmarks_dir=snakemake.params.benchmarks,
        table_path=snakemake.output.table,
        text_path=snakemake.output.text,
        figure_path=snakemake.output.figure,
        **snakemake.params.options,
    )
