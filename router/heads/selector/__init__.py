"""A selector: one linear map from the first layers' states to every menu program's chance of being right."""
