"""Entry point of the rule attach_pairs."""

from stainfuser.recording import recorded
from stainfuser.stages.attach_pairs import attach_pairs

with recorded(snakemake):
    attach_pairs(folder=snakemake.input.folder, pairs_path=snakemake.output.pairs)
