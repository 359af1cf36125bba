"""Entry point of the rule list_slides."""

from stainfuser.logs import logged
from stainfuser.stages.list_slides import list_slides

with logged(snakemake.log[0]):
    list_slides(json_paths=snakemake.input.json, index_path=snakemake.output.index)
