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
        "../../envs/stainfuser.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        options=config["clusters"],
        seed=config["seed"],
    script:
        "../../scripts/cluster_stains.py"
