"""What is known of models, adapters and data sets without loading them."""
