"""A router for every layer (Dr.LLM, arXiv 2510.12773, section 3.2)."""
