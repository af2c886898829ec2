"""How good a router is on questions that it never saw, beside what it must be compared with."""
