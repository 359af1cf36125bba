"""Entry point of the rule normalize_images."""

from stainfuser.recording import recorded
from stainfuser.stages.normalize_images import normalize_images

with recorded(snakemake, f"{snakemake.output.folder}.json"):
    normalize_images(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        json_path=snakemake.input.json,
        target_path=snakemake.input.target,
        model_dir=snakemake.input.model,
        output_dir=snakemake.output.folder,
        record_path=f"{snakemake.output.folder}.json",
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
