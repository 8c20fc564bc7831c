"""Show the whole sweep on one page.

INPUT  results/<sweep>/plan.json, comparisons.json, phases.json, figures/, <backend>/{verdicts,metrics,aggregate}.json
       and the measurement and power trace of one repeat a cell
OUTPUT results/<sweep>/report.html
"""


rule report:
    """Make the report: one HTML file that needs no network."""
    input:
        script=f"{SCRIPTS}/report.py",
        modules=modules_behind("report.py"),
        plan="results/{sweep}/plan.json",
        comparisons="results/{sweep}/comparisons.json",
        phases="results/{sweep}/phases.json",
        figures="results/{sweep}/figures",
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
        metrics=expand("results/{{sweep}}/{backend}/metrics.json", backend=PLAN.backends),
        verdicts=expand("results/{{sweep}}/{backend}/verdicts.json", backend=PLAN.backends),
    output:
        report(
            "results/{sweep}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole sweep"},
        ),
    log:
        "logs/{sweep}/report.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --plan {input.plan:q} \
            --aggregates {input.aggregates:q} \
            --metrics {input.metrics:q} \
            --verdicts {input.verdicts:q} \
            --comparisons {input.comparisons:q} \
            --phases {input.phases:q} \
            --figures {input.figures:q} \
            --out {output:q} 2>{log:q}
        """
