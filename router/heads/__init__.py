"""The kinds of routers: ``per_layer`` is the paper's, ``early_exit`` a classifier behind the first layers."""
