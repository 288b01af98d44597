"""Rules for exported files, which `deploy` of a data set asks for, and for times; the Snakefile includes them."""


def teacher_of(wildcards):
    """Return the model whose boxes decide what an INT8 file keeps in float32: what was converted, or the run itself."""
    run = run_of(wildcards)
    name = run.base if run.kind == "ghostify" else run.name
    return f"{RUNS}/{wildcards.dataset}/{PLAN.runs[wildcards.dataset][name].weights}"


def timed_of(wildcards):
    """Return the checkpoints and exported folders that a bench needs; YAMLs are no files of a run."""
    timed = [artifact.folder or artifact.timed_as for artifact in to_time(ARTIFACTS[wildcards.dataset].values())]
    return [f"{RUNS}/{wildcards.dataset}/{path}" for path in dict.fromkeys(timed) if not path.endswith(".yaml")]


rule deploy:
    """Export a checkpoint, INT8 calibrated on the training images without labels; the folder is whole or not there."""
    input:
        weights=lambda wildcards: f"{RUNS}/{wildcards.dataset}/{run_of(wildcards).weights}",
        teacher=teacher_of,
        images=RUNS + "/{dataset}/images-0",
    output:
        directory(RUNS + "/{dataset}/{run}/{deployment}/exported"),
    params:
        imgsz=imgsz_of,
    threads: THREADS
    log:
        RUNS + "/{dataset}/{run}/{deployment}/log.txt",
    shell:
        "python -m experiments deploy {input.weights} {wildcards.deployment} {params.imgsz} --images {input.images}"
        " --teacher {input.teacher} --threads {threads} -o {output} > {log} 2>&1"


rule bench:
    """Time the models or exported files, with nothing else running: the rule takes all cores.

    Status 1 with a file means that some were not timed; the page names them.
    """
    input:
        timed_of,
        splits=RUNS + "/{dataset}/splits.json",
    output:
        RUNS + "/{dataset}/bench.json",
    params:
        folder=RUNS + "/{dataset}",
        models=lambda wildcards: list(
            dict.fromkeys(artifact.timed_as for artifact in to_time(ARTIFACTS[wildcards.dataset].values()))
        ),
        nc=lambda wildcards, input: json.loads(Path(input.splits).read_text())["nc"] if Path(input.splits).is_file() else 0,
        imgsz=imgsz_of,
        mixed=lambda wildcards: f"--mixed --threads {THREADS}" if wildcards.dataset in DEPLOYED else "",
        options=config["bench"],
    threads: workflow.cores
    log:
        RUNS + "/{dataset}/bench.txt",
    shell:
        "(cd {params.folder} && ghost-yolo bench {params.models} --nc {params.nc} --imgsz {params.imgsz} {params.mixed}"
        " {params.options} --format json -o bench.json) > {log} 2>&1 || [ $? = 1 ] && [ -s {output} ]"


rule agreement:
    """Score the exported files of a data set without labels, on its val images, beside their true accuracy."""
    input:
        lambda wildcards: [f"{RUNS}/{wildcards.dataset}/{artifact.folder}" for artifact in ARTIFACTS[wildcards.dataset].values()],
        lambda wildcards: [f"{RUNS}/{wildcards.dataset}/{name}/scores-val.npz" for name in ARTIFACTS[wildcards.dataset]],
        splits=RUNS + "/{dataset}/splits.json",
        data=data_of,
    output:
        RUNS + "/{dataset}/agreement.json",
    params:
        config=config_of,
    threads: THREADS
    log:
        RUNS + "/{dataset}/agreement.txt",
    shell:
        "python -m experiments predict-accuracy {params.config:q} {wildcards.dataset} {input.data} {input.splits} -o {output}"
        " > {log} 2>&1"


rule pool:
    """Correlate agreement and accuracy over all exported files of all data sets, and plot them."""
    input:
        expand(RUNS + "/{dataset}/agreement.json", dataset=DEPLOYED),
    output:
        RUNS + "/agreement.json",
    shell:
        "python -m experiments pool {input} -o {output}"
