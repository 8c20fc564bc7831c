"""The stage ``prompts``: the prompts of each workload, as token ids that all engines get."""
