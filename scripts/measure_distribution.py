"""Entry point of the rule measure_distribution."""

from stainfuser.recording import recorded
from stainfuser.stages.measure_distribution import measure_distribution

with recorded(snakemake):
    measure_distribution(
        arm_paths=snakemake.input.arm,
        sample_paths=snakemake.input.sample,
        target_paths=snakemake.input.target,
        table_path=snakemake.output.table,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
