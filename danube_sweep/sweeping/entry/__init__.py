"""The ways into a sweep, thin: Hydra's plugins, the W&B agent, a W&B sweep file; and where their results go."""
