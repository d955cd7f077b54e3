"""The merger: puts an adapter into the 16-bit base model."""
