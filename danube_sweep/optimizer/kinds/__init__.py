"""One file per optimizer: its fields, how it is built, and the memory of its states. No torch at the top."""
