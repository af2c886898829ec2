"""A selector: from the first layers' states every menu program's chance of being right, and the choice among them."""
