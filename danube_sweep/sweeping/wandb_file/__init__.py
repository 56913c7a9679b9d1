"""W&B's sweep file: sweep_file_text  strict YAML · wandb_parameters  its distributions ·
read_sweep_file  the whole file as overrides."""
