"""Measure each repeat of each cell, one at a time on a host, in the backend's own environment.

INPUT  results/<sweep>/specs/<cell>/<repeat>.json, the model's files (those in 8 bits too, where the
       engine can't quantise), the prompts' token ids, the arrivals of timed traffic
OUTPUT results/<sweep>/<backend>/measurements/<cell>/<repeat>.json
"""


# An edited script re-measures nothing: a changed spec, which holds the protocol's version, does.
# Snakemake caps thread pools at a job's cores, but an engine is measured with the whole host. A
# PYTHONPATH of the user's would put other packages before those of the backend's environment. What was
# measured is not deleted beforehand (`update`): a job of a workflow that died may have just measured it.
rule measure:
    """Measure one repeat of one cell."""
    input:
        runner=ancient(f"{SCRIPTS}/measure.py"),
        plan=ancient("results/{sweep}/plan.json"),
        spec="results/{sweep}/specs/{model}--{backend}--{precision}/{repeat}.json",
        manifest="results/models/{model}/manifest.json",
        quantised=quantised_manifest,
        prompts="results/{sweep}/prompts/{model}.json",
        arrivals=arrivals,
    output:
        update(
            "results/{sweep}/{backend}/measurements/{model}--{backend}--{precision}/{repeat}.json"
        ),
    log:
        "logs/{sweep}/measure/{model}--{backend}--{precision}/{repeat}.log",
    priority: measuring_priority
    group:
        BLOCK
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
        arrivals={input.arrivals:q}
        unset OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS PYTHONPATH
        {params.python:q} {input.runner:q} \
            --spec {input.spec:q} \
            --manifest {input.manifest:q} \
            --prompts {input.prompts:q} \
            --plan {input.plan:q} \
            ${{arrivals:+--arrivals "$arrivals"}} \
            --out {output:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
