"""Features of texts for routers and probes, computed once on Ray actors and kept."""
