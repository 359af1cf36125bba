"""Entry point of the rule check_consistency."""

from stainfuser.recording import recorded
from stainfuser.stages.check_consistency import check_consistency

with recorded(snakemake):
    check_consistency(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        normalized_path=snakemake.input.normalized,
        record_path=snakemake.input.record,
        mask_path=snakemake.input.mask,
        sample_path=snakemake.input.sample,
        delivered_path=snakemake.input.delivered,
        target_path=snakemake.input.target,
        model_dir=snakemake.input.model,
        report_path=snakemake.output.report,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
