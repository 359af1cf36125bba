# In: tiles of all slides and the target images. Out: tissue and stain clusters, sources and targets.
rule cluster_stains:
    input:
        tiles=tile_stores,
        target=target_images,
    output:
        assignments="results/clusters/assignments.csv",
        centroids="results/clusters/centroids.npz",
        tissue_montage="results/clusters/tissue_montage.png",
        stain_montage="results/clusters/stain_montage.png",
    log:
        "results/logs/cluster_stains.log",
    benchmark:
        "results/benchmarks/cluster_stains.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000, per_slide=4),
        runtime=growing(60, per_slide=0.1),
        disk_mb=growing(500),
        gpu=0,
    params:
        options=config["clusters"],
        seed=config["seed"],
    script:
        "../../scripts/cluster_stains.py"
