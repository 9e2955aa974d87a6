"""Pictures, sounds and the values of table cells, as data, processors and tasks share them."""
