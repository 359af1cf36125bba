"""Entry point of the rule plan_pairs."""

from stainfuser.recording import recorded
from stainfuser.stages.plan_pairs import plan_pairs

with recorded(snakemake):
    plan_pairs(
        assignments_path=snakemake.input.assignments,
        tiles_paths=list(snakemake.input.tiles),
        target_paths=list(snakemake.input.target),
        plan_path=snakemake.output.plan,
        sources_path=snakemake.output.sources,
        targets_path=snakemake.output.targets,
        seed=snakemake.params.seed,
        method=snakemake.params.method,
        sources_per_target=snakemake.params.sources_per_target,
    )
