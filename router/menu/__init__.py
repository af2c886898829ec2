"""Sets of programs that questions share: which programs, who is right under them, and what to expect of each."""
