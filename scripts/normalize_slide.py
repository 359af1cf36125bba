"""Entry point of the rule normalize_slide."""

from stainfuser.recording import recorded
from stainfuser.stages.normalize_slide import normalize_slide

with recorded(snakemake):
    normalize_slide(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        json_path=snakemake.input.json,
        mask_path=snakemake.input.mask,
        target_path=snakemake.input.target,
        model_dir=snakemake.input.model,
        output_path=snakemake.output.slide,
        record_path=snakemake.output.record,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
