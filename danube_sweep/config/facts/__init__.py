"""Facts about models, adapters and data sets, known without loading them."""
