"""Entry point of the rule cluster_stains."""

from stainfuser.recording import recorded
from stainfuser.stages.cluster_stains import cluster_stains

with recorded(snakemake):
    cluster_stains(
        tiles_paths=list(snakemake.input.tiles),
        target_paths=list(snakemake.input.target),
        assignments_path=snakemake.output.assignments,
        centroids_path=snakemake.output.centroids,
        tissue_montage_path=snakemake.output.tissue_montage,
        stain_montage_path=snakemake.output.stain_montage,
        seed=snakemake.params.seed,
        workers=snakemake.threads,
        **snakemake.params.options,
    )
