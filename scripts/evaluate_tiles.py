"""Entry point of the rule evaluate_tiles."""

from stainfuser.logs import logged
from stainfuser.stages.evaluate_tiles import evaluate_tiles

with logged(snakemake.log[0]):
    evaluate_tiles(
        tiles_paths=snakemake.input.tiles,
        normalized_paths=snakemake.input.normalized,
        record_paths=snakemake.input.record,
        truth_paths=snakemake.input.truth,
        target_paths=snakemake.input.target,
        model_dir=snakemake.input.model,
        trained_dir=snakemake.input.trained or None,
        table_path=snakemake.output.table,
        examples_path=snakemake.output.examples,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
