"""Entry point of the rule merge_pairs."""

from stainfuser.recording import recorded
from stainfuser.stages.merge_pairs import merge_pairs

with recorded(snakemake):
    merge_pairs(
        plan_path=snakemake.input.plan,
        sources_path=snakemake.input.sources,
        targets_path=snakemake.input.targets,
        shard_paths=list(snakemake.input.shard),
        pairs_path=snakemake.output.pairs,
        scores_path=snakemake.output.scores,
    )
