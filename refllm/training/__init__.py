"""Floor 3: data, optimizer, schedule, the train step and the loop around it."""
