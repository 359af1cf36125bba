"""Entry point of the rule prepare_downstream."""

from stainfuser.recording import recorded
from stainfuser.stages.prepare_downstream import prepare_downstream

with recorded(snakemake):
    prepare_downstream(
        data_path=snakemake.output.data,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
