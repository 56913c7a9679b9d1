"""One file a kind of data: how its files become records."""
