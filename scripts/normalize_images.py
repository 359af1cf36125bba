"""Entry point of the rule normalize_images."""

from stainfuser.logs import logged
from stainfuser.stages.normalize_images import normalize_images

with logged(snakemake.log[0], snakemake.params.failure):
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
