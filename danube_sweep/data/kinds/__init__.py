"""One file a kind of data: its fields, and how its rows are read. No torch at the top."""
