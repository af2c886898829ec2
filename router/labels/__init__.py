"""From path data sets to what routers learn: a label for each question."""
