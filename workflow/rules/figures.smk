"""Draw what was found.

INPUT  results/<sweep>/<backend>/aggregate.json, results/<sweep>/{comparisons,phases}.json, and the
       measurements and traces of one repeat a cell
OUTPUT results/<sweep>/figures/{index.json,<figure>.svg,<figure>.pdf}
"""


# Which figures there are depends on the data, so the folder is the output; index.json says why one is
# not there.
rule figures:
    """Draw every figure that the sweep has data for."""
    input:
        script=f"{SCRIPTS}/figures.py",
        modules=modules_behind("figures.py"),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
        comparisons="results/{sweep}/comparisons.json",
        phases="results/{sweep}/phases.json",
    output:
        report(
            directory("results/{sweep}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/{sweep}/figures.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --aggregates {input.aggregates:q} \
            --comparisons {input.comparisons:q} \
            --phases {input.phases:q} \
            --out-dir {output:q} 2>{log:q}
        """
