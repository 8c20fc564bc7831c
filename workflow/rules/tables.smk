"""Print what was found, each backend in its own block.

INPUT  results/<sweep>/<backend>/{aggregate,verdicts}.json, results/<sweep>/{comparisons,load,phases}.json
OUTPUT results/<sweep>/tables/<table>.{csv,md,tex}, results/<sweep>/tables/{energy.txt,phases.txt,summary.txt,sources.json}
"""


rule tables:
    """Write every table for spreadsheets, for people and for papers."""
    input:
        script=f"{SCRIPTS}/tables.py",
        modules=modules_behind("tables.py"),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
        verdicts=expand("results/{{sweep}}/{backend}/verdicts.json", backend=PLAN.backends),
        load="results/{sweep}/load.json",
        phases="results/{sweep}/phases.json",
        comparisons="results/{sweep}/comparisons.json",
    output:
        report(
            expand("results/{{sweep}}/tables/{table}.csv", table=TABLES),
            caption="../report/table.rst",
            category="Tables",
        ),
        expand("results/{{sweep}}/tables/{table}.{suffix}", table=TABLES, suffix=["md", "tex"]),
        "results/{sweep}/tables/sources.json",
        "results/{sweep}/tables/phases.txt",
        "results/{sweep}/tables/summary.txt",
        summary="results/{sweep}/tables/energy.txt",
    log:
        "logs/{sweep}/tables.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    threads: 16
    params:
        python=workflow_python,
        folder=subpath(output.summary, parent=True),
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --aggregates {input.aggregates:q} \
            --verdicts {input.verdicts:q} \
            --load {input.load:q} \
            --phases {input.phases:q} \
            --comparisons {input.comparisons:q} \
            --jobs {threads:q} \
            --out-dir {params.folder:q} 2>{log:q}
        """
