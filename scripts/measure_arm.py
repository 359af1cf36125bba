"""Entry point of the rule measure_arm."""

from stainfuser.recording import recorded
from stainfuser.stages.measure_arm import measure_arm

with recorded(snakemake):
    measure_arm(
        arm=snakemake.wildcards.arm,
        images_path=snakemake.input.images,
        sample_paths=snakemake.input.sample,
        target_paths=snakemake.input.target,
        table_path=snakemake.output.table,
        **snakemake.params.options,
    )
