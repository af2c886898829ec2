"""What a path data set shows, as one page: numbers (``analysis``), figures as data (``charts``), and how they look."""
