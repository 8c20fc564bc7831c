"""Any server that speaks the OpenAI completions API, started by the job or already there."""
