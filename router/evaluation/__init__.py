"""The evaluation of a router: its accuracy on unseen examples, beside that of other methods."""
