"""Print what was found, each backend in its own block.

INPUT  results/<sweep>/<backend>/aggregate.json
OUTPUT results/<sweep>/tables/energy.{csv,md,tex,txt}
"""


rule tables:
    """Write the energy table for spreadsheets, for people, for papers and for the terminal."""
    input:
        script=f"{SCRIPTS}/tables.py",
        modules=multiext(f"{SCRIPTS}/llm_energy/", "tables.py", "typesetting.py", "statistics.py"),
        aggregates=expand("results/{{sweep}}/{backend}/aggregate.json", backend=PLAN.backends),
    output:
        multiext("results/{sweep}/tables/energy", ".csv", ".md", ".tex", ".txt"),
    log:
        "logs/{sweep}/tables.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
        folder=subpath(output[0], parent=True),
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --aggregates {input.aggregates:q} \
            --out-dir {params.folder:q} 2>{log:q}
        """
