"""The trainer: checks a job's data and model, then fine-tunes a LoRA adapter."""
