"""What every other room depends on: the values parts hand to each other, errors, the registry of
names, settings, seeding and storage.
"""
