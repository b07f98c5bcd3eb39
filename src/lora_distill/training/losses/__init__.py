"""What a training makes small: the student's loss, and each soft loss that it may hold in a file of its own."""
