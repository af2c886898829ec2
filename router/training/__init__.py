"""From path data sets to a router folder, and from examples to a menu."""
