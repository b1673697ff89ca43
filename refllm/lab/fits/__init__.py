"""Laws of the loss: tables of runs, published laws, fits with intervals, and what they say of a budget."""
