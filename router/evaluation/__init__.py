"""The evaluation of a router: its accuracy on unseen questions, beside that of other methods."""
