"""Entry point of the rule make_ablation_phantoms."""

from stainfuser.recording import recorded
from stainfuser.stages.make_ablation_phantoms import make_ablation_phantoms

with recorded(snakemake):
    make_ablation_phantoms(
        phantoms_path=snakemake.output.phantoms,
        targets=snakemake.params.targets,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
