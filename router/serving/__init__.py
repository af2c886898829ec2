"""What is handed out: a stock checkpoint of one program."""
