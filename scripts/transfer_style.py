"""Entry point of the rule transfer_style."""

from stainfuser.recording import recorded
from stainfuser.stages.transfer_style import transfer_style

with recorded(snakemake):
    transfer_style(
        pair_target=snakemake.wildcards.pair_target,
        plan_path=snakemake.input.plan,
        sources_path=snakemake.input.sources,
        targets_path=snakemake.input.targets,
        shard_path=snakemake.output.shard,
        sheet_path=snakemake.output.sheet,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
