"""The ranking of a sweep folder, running or ended; imports no torch.

trials  what the run folders say · varied  what differs between them · examples, bootstrap  how sure a difference is
rank  the rows, best first · table  as text, csv and markdown
"""
