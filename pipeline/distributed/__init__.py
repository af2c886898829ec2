"""Work on a Ray cluster: actors that hold a model, what they are handed, and what happens when they die."""
