# In: a normalised slide. Out: the same in another format, its tiles copied, as config.export asks.
rule export_ome_tiff:
    input:
        slide="results/normalized/{target}/{slide}.svs",
    output:
        file="results/exported/ome_tiff/{target}/{slide}.ome.tif",
    log:
        "results/logs/export_ome_tiff/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/export_ome_tiff/{target}/{slide}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10, per_gigapixel=2),
        disk_mb=growing(100, per_gigapixel=1500),
        gpu=0,
    script:
        "../../scripts/export_ome_tiff.py"


rule export_dicom:
    input:
        slide="results/normalized/{target}/{slide}.svs",
    output:
        folder=directory("results/exported/dicom/{target}/{slide}"),
    log:
        "results/logs/export_dicom/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/export_dicom/{target}/{slide}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10, per_gigapixel=2),
        disk_mb=growing(100, per_gigapixel=1500),
        gpu=0,
    script:
        "../../scripts/export_dicom.py"
