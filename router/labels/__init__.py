"""From path data sets to what routers learn: a label for each example."""
