"""Export of one program as a stock checkpoint."""
