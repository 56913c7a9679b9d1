"""One file an optimizer: its fields, how it is built, and what its states take. No torch at the top."""
