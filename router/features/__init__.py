"""What routers and probes read of a text, computed once on Ray actors and kept."""
