"""Training examples changed at random: what may be set, and the change of a micro-batch.

Every sample is changed by numbers that are a function of the run's seed and the sample's own
number, so results depend neither on the micro-batch nor on where a run was stopped.
"""
