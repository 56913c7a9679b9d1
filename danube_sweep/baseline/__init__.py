"""The cheap rival: linear models on words and lengths, on the same split as the trials."""
