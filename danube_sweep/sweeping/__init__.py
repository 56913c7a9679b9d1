"""A sweep: many trials to their end, in spite of crashes, and a ranking.

start_sweep  plan and run a sweep · resume_sweep  go on with one · dry_run  only look
end_sweep  the winner's test part, the ranking
propose/  the next trial: a grid's cells, a search's draws; early ends of trials
execute/  trials in processes of their own, several at a time
other_launchers  batches for Hydra's own launchers
cluster/  jobs of a cluster that share a sweep's folder
share/  trials of several W&B agents of one machine, in one executor
train_refit  the best settings on all rows
entry/  Hydra's plugins, the W&B agent, a W&B sweep file · wandb_file/  the reading of that file
"""
