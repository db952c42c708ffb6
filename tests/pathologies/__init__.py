"""The corpus: real small trainings, healthy and with injected faults, labelled with what is wrong with them.

`tasks` has the families of data and models, `training` the one loop that trains them all, `recipes` the labelled list,
and `record` the command that trains the list under a Monitor and leaves one run directory each.
"""
