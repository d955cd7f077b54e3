"""The GGUF converter: makes, checks and installs GGUF files."""
