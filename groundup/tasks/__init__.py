"""What is learned: loss, metrics, prediction and evaluation, a file or a folder for each task."""
