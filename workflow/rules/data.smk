"""Hand on what was found as tidy tables.

INPUT  results/<sweep>/plan.json, comparisons.json, <backend>/{verdicts,metrics,aggregate}.json and the
       measurements
OUTPUT results/<sweep>/data/{windows,cells,comparisons,requests}.{parquet,csv}, README.md, datapackage.json
"""


rule data:
    """Write tidy tables for pandas, R and databases, and what their columns mean."""
    input:
        script=f"{SCRIPTS}/data.py",
        modules=modules_behind("data.py"),
        plan="results/{sweep}/plan.json",
        measurements=asked_measurements(),
        verdicts=expand("results/{{sweep}}/{backend}/verdicts.json", backend=PLAN.backends),
        metrics=expand("results/{{sweep}}/{backend}/metrics.json", backend=PLAN.backends),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
        comparisons="results/{sweep}/comparisons.json",
    output:
        expand(
            "results/{{sweep}}/data/{table}.{suffix}",
            table=["windows", "cells", "comparisons", "requests"],
            suffix=["parquet", "csv"],
        ),
        "results/{sweep}/data/datapackage.json",
        page="results/{sweep}/data/README.md",
    log:
        "logs/{sweep}/data.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    threads: 16
    params:
        python=workflow_python,
        folder=subpath(output.page, parent=True),
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --plan {input.plan:q} \
            --verdicts {input.verdicts:q} \
            --metrics {input.metrics:q} \
            --aggregates {input.aggregates:q} \
            --comparisons {input.comparisons:q} \
            --jobs {threads:q} \
            --out-dir {params.folder:q} 2>{log:q}
        """
