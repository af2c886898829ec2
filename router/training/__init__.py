"""From path data sets to a router folder."""
