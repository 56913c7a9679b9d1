"""Jobs and actors of clusters that train the trials of one sweep folder.

cluster_fields  the options for the cluster · cluster_options  the same, checked
cluster_jobs  the jobs of a sweep: submitted, listed, ended · cluster_worker  the code that runs in a job
follow_jobs  the command that submits them and waits
ray_options, ray_worker, ray_actors  the same for actors of a Ray cluster
"""
