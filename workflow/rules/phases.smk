"""Say how joules split over input tokens and output tokens.

INPUT  results/<sweep>/<backend>/metrics.json
OUTPUT results/<sweep>/phases.json
"""


rule phases:
    """Tell what a token of a prompt costs from what a token of an answer costs."""
    input:
        script=f"{SCRIPTS}/phases.py",
        modules=modules_behind("phases.py"),
        metrics=expand("results/{{sweep}}/{backend}/metrics.json", backend=PLAN.backends),
    output:
        "results/{sweep}/phases.json",
    log:
        "logs/{sweep}/phases.log",
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
            --out {output:q} 2>{log:q}
        """
