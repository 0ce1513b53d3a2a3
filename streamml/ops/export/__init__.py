"""A stretch of a topic as a table to train from: events, the features that the model saw, predictions, labels."""
