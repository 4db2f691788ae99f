"""Inference processes: who serves which base model, and which of them is asked."""
