"""Say how energy depends on load: where each rate lies, and the line of a cell's power over it.

INPUT  results/<sweep>/<backend>/{metrics,aggregate}.json
OUTPUT results/<sweep>/load.json
"""


rule load_curve:
    """Separate what an engine draws while it waits from what a token costs."""
    input:
        script=f"{SCRIPTS}/load_curve.py",
        modules=modules_behind("load_curve.py"),
        metrics=expand("results/{{sweep}}/{backend}/metrics.json", backend=PLAN.backends),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
    output:
        "results/{sweep}/load.json",
    log:
        "logs/{sweep}/load_curve.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --metrics {input.metrics:q} \
            --aggregates {input.aggregates:q} \
            --out {output:q} 2>{log:q}
        """
