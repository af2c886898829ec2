"""A trained router or probe on disk: its folder, its card, and the base model that it belongs to."""
