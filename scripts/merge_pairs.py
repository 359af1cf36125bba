"""Entry point of the rule merge_pairs."""

from stainfuser.logs import logged
from stainfuser.stages.merge_pairs import merge_pairs

with logged(snakemake.log[0]):
    merge_pairs(
        plan_path=snakemake.input.plan,
        sources_path=snakemake.input.sources,
        targets_path=snakemake.input.targets,
        shard_paths=list(snakemake.input.shard),
        pairs_path=snakemake.output.pairs,
        scores_path=snakemake.output.scores,
    )
