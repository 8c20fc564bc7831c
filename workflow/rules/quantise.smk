"""Quantise each model once, where a cell's engine can't do it while it loads the model.

INPUT  results/models/<model>/{files/,manifest.json}
OUTPUT results/models/<model>/{files-int8/,manifest-int8.json}
"""


rule quantise:
    """Quantise a model to 8 bits for the engines that can't while they load it."""
    input:
        files="results/models/{model}/files",
        manifest="results/models/{model}/manifest.json",
    output:
        files=directory("results/models/{model}/files-int8"),
        manifest="results/models/{model}/manifest-int8.json",
    log:
        "logs/models/{model}--int8.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        script=script("quantise"),
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --files {input.files:q} \
            --manifest {input.manifest:q} \
            --folder {output.files:q} \
            --out {output.manifest:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
