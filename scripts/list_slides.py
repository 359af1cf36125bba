"""Entry point of the rule list_slides."""

from stainfuser.recording import recorded
from stainfuser.stages.list_slides import list_slides

with recorded(snakemake):
    list_slides(json_paths=snakemake.input.json, index_path=snakemake.output.index)
