"""What the Triton backend is made of; only `compiled` and `words` may be imported where there is no triton."""
