"""Summarise repeats, one backend at a time.

INPUT  results/<sweep>/<backend>/metrics.json, results/<sweep>/plan.json
OUTPUT results/<sweep>/<backend>/aggregate.json
"""


rule aggregate:
    """Return mean, spread and interval of every cell and workload of one backend."""
    input:
        script=f"{SCRIPTS}/aggregate.py",
        modules=modules_behind("aggregate.py"),
        plan="results/{sweep}/plan.json",
        metrics="results/{sweep}/{backend}/metrics.json",
    output:
        "results/{sweep}/{backend}/aggregate.json",
    log:
        "logs/{sweep}/aggregate/{backend}.log",
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
            --plan {input.plan:q} \
            --out {output:q} 2>{log:q}
        """
