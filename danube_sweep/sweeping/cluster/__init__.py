"""Jobs of a cluster that train the trials of one sweep folder.

cluster_options  what the user asks of the cluster · cluster_jobs  the jobs of a sweep: submitted, listed, ended
cluster_worker  what runs in a job · follow_jobs  the command that submits them and waits
"""
