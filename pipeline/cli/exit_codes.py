"""Exit codes of ``drllm-pipeline``, beside 0 for a complete run."""

EXIT_INCOMPLETE = 1
EXIT_WRONG_CALL = 2
