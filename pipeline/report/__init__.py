"""A report on a path data set: the numbers (``analysis``), the figures as data (``charts``), and their look."""
