"""Compile engines before they are measured, for the backends that have such a step.

INPUT  results/<sweep>/specs/<cell>/r01.json, the model's files, the prompts' token ids
OUTPUT results/<sweep>/<backend>/engines/<cell>.json, results/<sweep>/tables/builds.{csv,md}
       results/models/<model>/engines/<key>/, kept for every cell that needs the same engine
"""


# All repeats of a cell ask for the same engine. What it takes is metered, so like a measurement it
# gets the whole host.
rule build:
    """Compile the engine of a cell, or take the one that is there."""
    input:
        runner=ancient(f"{SCRIPTS}/build.py"),
        spec="results/{sweep}/specs/{model}--{backend}--{precision}/r01.json",
        manifest="results/models/{model}/manifest.json",
        prompts="results/{sweep}/prompts/{model}.json",
    output:
        "results/{sweep}/{backend}/engines/{model}--{backend}--{precision}.json",
    log:
        "logs/{sweep}/build/{model}--{backend}--{precision}.log",
    conda:
        backend_environment
    container:
        backend_image
    resources:
        gpu=boards,
    params:
        python=backend_python,
    shell:
        r"""
        unset OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS PYTHONPATH
        {params.python:q} {input.runner:q} \
            --spec {input.spec:q} \
            --manifest {input.manifest:q} \
            --prompts {input.prompts:q} \
            --out {output:q} 2>{log:q}
        """


rule builds:
    """Write what compiling the engines took, apart from the energy of inference."""
    input:
        script=f"{SCRIPTS}/builds.py",
        modules=modules_behind("builds.py"),
        builds=PLAN.engine_builds(),
    output:
        multiext("results/{sweep}/tables/builds", ".csv", ".md"),
    log:
        "logs/{sweep}/builds.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
        folder=subpath(output[0], parent=True),
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --sweep {wildcards.sweep:q} \
            --builds {input.builds:q} \
            --out-dir {params.folder:q} 2>{log:q}
        """
