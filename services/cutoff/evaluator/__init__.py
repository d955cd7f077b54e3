"""The evaluator: asks a model the job's questions and grades its answers."""
