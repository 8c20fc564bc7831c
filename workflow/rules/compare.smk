"""Compare the cells of a sweep with each other, where they may be compared.

INPUT  results/<sweep>/<backend>/{metrics,aggregate}.json, results/<sweep>/plan.json
OUTPUT results/<sweep>/comparisons.json
"""


rule compare:
    """Pair cells block by block, and put the sweep in order: crossovers, fronts, recommendation."""
    input:
        script=f"{SCRIPTS}/compare.py",
        modules=modules_behind("compare.py"),
        plan="results/{sweep}/plan.json",
        metrics=expand("results/{{sweep}}/{backend}/metrics.json", backend=PLAN.backends),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
    output:
        "results/{sweep}/comparisons.json",
    log:
        "logs/{sweep}/compare.log",
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
            --plan {input.plan:q} \
            --out {output:q} 2>{log:q}
        """
