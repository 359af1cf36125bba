"""Entry point of the rule attach_pairs."""

from stainfuser.logs import logged
from stainfuser.stages.attach_pairs import attach_pairs

with logged(snakemake.log[0]):
    attach_pairs(folder=snakemake.input.folder, pairs_path=snakemake.output.pairs)
