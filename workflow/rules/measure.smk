"""Measure each repeat of each cell, one at a time on a host, in the backend's own environment.

INPUT  results/<sweep>/specs/<cell>/<repeat>.json (part of the plan), the model's files (those in 8
       bits too, where the engine can't quantise), the prompts' token ids, the arrivals of timed traffic
OUTPUT results/<sweep>/<backend>/measurements/<cell>/<repeat>.json
"""


# What is measured is run again where it is of another spec, model or prompts than the plan's (PENDING),
# whatever the times of files say. An edited script re-measures nothing: the protocol's version, which
# the spec holds, does. The spec is a parameter: `plan` writes it with the grid, and Snakemake would
# take minutes over a rule with ten thousand outputs.
# Snakemake caps thread pools at a job's cores, but an engine is measured with the whole host. A
# PYTHONPATH of the user's would put other packages before those of the backend's environment. What was
# measured is not deleted beforehand (`update`): a job of a workflow that died may have just measured it.
rule measure:
    """Measure one repeat of one cell."""
    input:
        plan=unless(is_not_stale, "results/{sweep}/plan.json"),
        manifest=unless(is_fetched, "results/models/{model}/manifest.json"),
        quantised=unless(is_fetched, quantised_manifest),
        prompts=unless(is_settled, "results/{sweep}/prompts/{model}.json"),
        arrivals=ancient(arrivals),
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
        gpu=gpus,
    params:
        python=backend_python,
        script=script("measure"),
        spec="results/{sweep}/specs/{model}--{backend}--{precision}/{repeat}.json",
    shell:
        r"""
        arrivals={input.arrivals:q}
        unset OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS PYTHONPATH
        {params.python:q} {params.script:q} \
            --spec {params.spec:q} \
            --manifest {input.manifest:q} \
            --prompts {input.prompts:q} \
            --plan {input.plan:q} \
            ${{arrivals:+--arrivals "$arrivals"}} \
            --out {output:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
