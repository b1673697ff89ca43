"""Laws of the loss: tables of runs, the laws in print, fits with intervals, and what they say of a budget."""
