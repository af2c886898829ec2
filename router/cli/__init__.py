"""The commands of ``drllm-pipeline`` that concern routers and probes."""
