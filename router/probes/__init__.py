"""Training, judging and using probes (``router.probes``): from labelled texts to a folder that anyone loads."""
