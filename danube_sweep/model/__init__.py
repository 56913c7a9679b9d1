"""The frozen backbone: loaded, stored, quantized, and its attention."""
