"""Fetch or convert each model once, and each of its checkpoints that were quantised before.

INPUT  the model's entry in the config
OUTPUT results/models/<model>/{files/,manifest.json}, and for each precision of `checkpoints`
       results/models/<model>/{files-<precision>/,manifest-<precision>.json}
"""


rule models:
    """Fetch or convert a model and hash its files."""
    output:
        files=directory("results/models/{model}/files"),
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/models/{model}.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        model=model_entry,
        script=script("models"),
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --model {params.model:q} \
            --folder {output.files:q} \
            --manifest {output.manifest:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """


rule checkpoints:
    """Fetch a checkpoint of a model that was quantised before, and hold it against its name."""
    output:
        files=directory("results/models/{model}/files-{checkpoint}"),
        manifest="results/models/{model}/manifest-{checkpoint}.json",
    log:
        "logs/models/{model}--{checkpoint}.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        model=checkpoint_entry,
        script=f"{SCRIPTS}/models.py",
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --model {params.model:q} \
            --folder {output.files:q} \
            --manifest {output.manifest:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
