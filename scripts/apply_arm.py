"""Entry point of the rule apply_arm."""

from stainfuser.recording import recorded
from stainfuser.stages.apply_arm import apply_arm

with recorded(snakemake):
    apply_arm(
        arm=snakemake.wildcards.arm,
        jobs=snakemake.params.jobs,
        sample_paths=snakemake.input.sample,
        target_paths=snakemake.input.target,
        normalized_paths=snakemake.input.normalized,
        baseline_dirs=snakemake.input.baseline,
        model_dir=snakemake.input.model or None,
        trained_dir=snakemake.input.trained or None,
        images_path=snakemake.output.images,
        record_path=snakemake.output.record,
        seed=snakemake.params.seed,
        style_options=snakemake.params.style,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
