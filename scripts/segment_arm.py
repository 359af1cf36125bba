"""Entry point of the rule segment_arm."""

from stainfuser.recording import recorded
from stainfuser.stages.segment_arm import segment_arm

with recorded(snakemake):
    segment_arm(
        arm=snakemake.wildcards.arm,
        data_path=snakemake.input.data,
        segmenter_dir=snakemake.params.segmenter,
        baseline_dirs=snakemake.input.baseline,
        model_dir=snakemake.input.model or None,
        trained_dir=snakemake.input.trained or None,
        table_path=snakemake.output.table,
        record_path=snakemake.output.record,
        picture_path=snakemake.output.picture,
        seed=snakemake.params.seed,
        style_options=snakemake.params.style,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
