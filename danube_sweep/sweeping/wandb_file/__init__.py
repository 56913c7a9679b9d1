"""W&B's sweep file: text  strict YAML · parameters  its distributions · read  the whole file as overrides."""
